/*
 * stats.c
 *		What the endpoint has seen: counters, keys and latencies.
 *
 * Cheap enough to stay on in a bench: a request costs one look-up by the hash
 * of its key, one search of its body for a time stamp, and some additions.
 */
#define _GNU_SOURCE
#include "stats.h"

#include <string.h>

#include "endpoint.h"
#include "hist.h"

#define MAX_KINDS		64
#define MAX_BUSY		64
#define BUSY_NAME		64
#define YEAR_2001_US	INT64_C(978307200000000)
#define YEAR_2100_US	INT64_C(4102444800000000)

typedef struct Busy
{
	char		name[BUSY_NAME];
	size_t		len;
	int			now;
	int			max;
} Busy;

static struct
{
	uint64_t	total;
	uint64_t	keyed;			/* requests that had a key */
	uint64_t	duplicates;		/* whose key had been seen before */
	uint64_t	after_success;	/* whose key had been answered 2xx before */
	uint64_t	accepted;
	uint64_t	aborted;
	int64_t		in_progress;
	int64_t		max_in_progress;
	uint64_t	kind[MAX_KINDS];
	uint64_t	status[6];		/* by first digit; 0 = not answered */
	int64_t		first_us;
	int64_t		last_us;
} st;

static KeySet keys;
static KeySet visits;
static Hist latency;
static Busy busy[MAX_BUSY];
static int	busy_len;

void
stats_accepted(void)
{
	st.accepted++;
}

void
stats_aborted(void)
{
	st.aborted++;
}

void
stats_begin(void)
{
	if (++st.in_progress > st.max_in_progress)
		st.max_in_progress = st.in_progress;
}

void
stats_end(void)
{
	st.in_progress--;
}

/* When the sender says it sent this: X-Sent-At, or "t": in the body; 0 = it does not. */
static int64_t
sent_at(const Request *req)
{
	int64_t		t = req->sent_at;

	if (t == 0 && req->body.len > 4)
	{
		const char *end = req->body.p + req->body.len;
		const char *p = memmem(req->body.p, req->body.len, "\"t\":", 4);

		if (p != NULL)
		{
			p += 4;
			while (p < end && *p == ' ')
				p++;
			t = slice_int((Slice) {p, end - p}, 0);
		}
	}
	return t > YEAR_2001_US && t < YEAR_2100_US ? t : 0;
}

void
stats_request(const Request *req, int kind, int status)
{
	int64_t		wall = now_wall_us();
	int64_t		t = sent_at(req);
	bool		success = status >= 200 && status < 300;

	st.total++;
	if (kind >= 0 && kind < MAX_KINDS)
		st.kind[kind]++;
	st.status[status >= 100 && status < 600 ? status / 100 : 0]++;
	if (st.first_us == 0)
		st.first_us = wall;
	st.last_us = wall;
	if (t != 0)
		hist_add(&latency, wall - t);
	if (req->key.len > 0)
	{
		KeyEntry   *entry = keyset_get(&keys, hash_bytes(req->key.p, req->key.len, 0));

		st.keyed++;
		if (entry->seen++ > 0)
			st.duplicates++;
		if (entry->succeeded)
			st.after_success++;
		entry->succeeded |= success;
	}
	if (!settings.count_only)
		ledger_add(req, status, now_mono_us(), wall);
}

uint32_t
stats_visits(const Request *req)
{
	Slice		id = req->key;
	uint64_t	h = hash_bytes(req->path.p, req->path.len, 0);

	query_raw(req->query, "id", &id);
	return keyset_get(&visits, hash_bytes(id.p, id.len, h))->seen++;
}

int
stats_busy_begin(Slice name)
{
	int			i;

	if (name.len > BUSY_NAME)
		name.len = BUSY_NAME;
	for (i = 0; i < busy_len; i++)
		if (busy[i].len == name.len && memcmp(busy[i].name, name.p, name.len) == 0)
			break;
	if (i == MAX_BUSY)
		return -1;
	if (i == busy_len)
	{
		memset(&busy[i], 0, sizeof(Busy));
		if (name.len > 0)
			memcpy(busy[i].name, name.p, name.len);
		busy[i].len = name.len;
		busy_len++;
	}
	if (++busy[i].now > busy[i].max)
		busy[i].max = busy[i].now;
	return i;
}

void
stats_busy_end(int slot)
{
	busy[slot].now--;
}

void
stats_reset(void)
{
	int64_t		in_progress = st.in_progress;
	int			i;

	memset(&st, 0, sizeof(st));
	st.in_progress = st.max_in_progress = in_progress;
	for (i = 0; i < busy_len; i++)
		busy[i].max = busy[i].now;
	keyset_clear(&keys);
	keyset_clear(&visits);
	hist_reset(&latency);
	ledger_reset();
}

void
stats_json(Buf *b, int open_connections)
{
	const char *sep = "";
	int			i;

	buf_printf(b, "{\"total\":%llu,\"keyed\":%llu,\"distinct\":%zu,\"duplicates\":%llu,\"after_success\":%llu,",
			   (unsigned long long) st.total, (unsigned long long) st.keyed, keys.used,
			   (unsigned long long) st.duplicates, (unsigned long long) st.after_success);
	buf_printf(b, "\"in_progress\":%lld,\"max_in_progress\":%lld,\"accepted\":%llu,\"open\":%d,\"aborted\":%llu,",
			   (long long) st.in_progress, (long long) st.max_in_progress,
			   (unsigned long long) st.accepted, open_connections, (unsigned long long) st.aborted);
	buf_printf(b, "\"first_us\":%lld,\"last_us\":%lld,", (long long) st.first_us, (long long) st.last_us);
	buf_printf(b, "\"answered\":{\"none\":%llu,\"1xx\":%llu,\"2xx\":%llu,\"3xx\":%llu,\"4xx\":%llu,\"5xx\":%llu},",
			   (unsigned long long) st.status[0], (unsigned long long) st.status[1],
			   (unsigned long long) st.status[2], (unsigned long long) st.status[3],
			   (unsigned long long) st.status[4], (unsigned long long) st.status[5]);
	buf_printf(b, "\"latency_us\":{\"count\":%llu,\"mean\":%.0f,\"min\":%lld,\"p50\":%lld,\"p90\":%lld,"
			   "\"p99\":%lld,\"p999\":%lld,\"max\":%lld},",
			   (unsigned long long) latency.count, latency.count ? latency.sum / latency.count : 0,
			   (long long) latency.min, (long long) hist_percentile(&latency, 50),
			   (long long) hist_percentile(&latency, 90), (long long) hist_percentile(&latency, 99),
			   (long long) hist_percentile(&latency, 99.9), (long long) latency.max);
	buf_str(b, "\"paths\":{");
	for (i = 0; i < MAX_KINDS && behave_name(i); i++)
	{
		if (st.kind[i] == 0)
			continue;
		buf_str(b, sep);
		buf_json(b, behave_name(i), strlen(behave_name(i)));
		buf_printf(b, ":%llu", (unsigned long long) st.kind[i]);
		sep = ",";
	}
	buf_str(b, "},\"concurrency\":{");
	for (i = 0; i < busy_len; i++)
	{
		if (i > 0)
			buf_str(b, ",");
		buf_json(b, busy[i].name, busy[i].len);
		buf_printf(b, ":{\"now\":%d,\"max\":%d}", busy[i].now, busy[i].max);
	}
	buf_str(b, "}}\n");
}
