/*
 * route.c
 *		Which of a scene's targets is called next, and which are left alone.
 *
 * A target is well, or out.  What takes it out is what says that it cannot
 * work at all (no answer, or one that means "not now"); other errors of the
 * server take it out when they come in a row.  After its time it is half open:
 * it may be chosen again like any other, but by one request only, whose end
 * decides.  Requests that were under way when it went out change nothing: what
 * they say is older than what is known.
 *
 * The routes see only the targets that may be chosen now.  The hash route is
 * weighted rendezvous hashing: each target draws a number from the key and its
 * own URL, scaled by its weight, and the highest wins.  So the keys of a target
 * that goes out or is removed are spread over the others, and no other key
 * moves; order in the list means nothing to it.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "route.h"
#include "url.h"

static const char *const route_names[RETRY_ROUTES] = {
	"hash", "random", "round_robin", "least_in_flight", "lru", "first", "last", "all"
};

bool
retry_route_by_name(const char *name, RetryRoute *route)
{
	for (int i = 0; i < RETRY_ROUTES; i++)
	{
		if (strcmp(name, route_names[i]) == 0)
		{
			*route = (RetryRoute) i;
			return true;
		}
	}
	return false;
}

/* Reads the N of weight=N: digits and nothing else. */
static bool
parse_weight(const char *digits, int32 *weight)
{
	int32		value = 0;

	for (const char *p = digits; *p != '\0'; p++)
	{
		if (*p < '0' || *p > '9' || p - digits >= 4)
			return false;
		value = value * 10 + (*p - '0');
	}
	*weight = value;
	return value >= 1 && value <= RETRY_ROUTE_WEIGHT_MAX;
}

/* How much of a word a message shows: some of it, and nothing beyond ASCII, of which a half would be no text. */
static int
shown_length(const char *word)
{
	int			len = 0;

	while (len < 60 && word[len] > 0 && word[len] < 0x7f)
		len++;
	return len;
}

bool
retry_route_parse_target(const char *text, int *url_len, int32 *weight, char *err, size_t err_size)
{
	char		url[RETRY_URL_MAX_LENGTH + 2];
	size_t		len = strcspn(text, " ");
	const char *rest = text + len;

	*weight = 1;
	*url_len = (int) Min(len, RETRY_URL_MAX_LENGTH + 1);
	if (strncmp(text, "sql:", 4) == 0)
	{
		snprintf(err, err_size, "a function cannot be one of several targets");
		return false;
	}
	/* one byte too many is kept, so that it is found to be too long */
	memcpy(url, text, *url_len);
	url[*url_len] = '\0';
	if (!retry_url_check(url, NULL, err, err_size))
		return false;

	rest += strspn(rest, " ");
	if (*rest == '\0')
		return true;
	if (strncmp(rest, "weight=", 7) != 0)
	{
		snprintf(err, err_size, "unknown word \"%.*s\"", shown_length(rest), rest);
		return false;
	}
	if (!parse_weight(rest + 7, weight))
	{
		snprintf(err, err_size, "weight \"%.*s\" is not a whole number from 1 to %d",
				 shown_length(rest + 7), rest + 7, RETRY_ROUTE_WEIGHT_MAX);
		return false;
	}
	return true;
}

uint64
retry_route_hash(const void *bytes, size_t len)
{
	return hash_bytes_extended(bytes, (int) len, 0);
}

/* Health */

/*
 * Its time is over, or the clock was set back since it went out: whatever
 * moment is in the future by more than the longest time out is none of ours.
 */
static inline bool
may_probe(const RetryRouteState *state, int64 now)
{
	return !state->probing && (now >= state->out_until || now < state->out_since);
}

static inline bool
may_choose(const RetryRouteTarget *target, int64 now)
{
	const RetryRouteState *state = target->state;

	if (state->barred_until != 0 && now < state->barred_until)
		return false;
	return !state->out || may_probe(state, now);
}

bool
retry_route_started(RetryRouteState *state, uint64 number)
{
	bool		probe = state->out;

	state->in_flight++;
	state->used = number;
	state->probing |= probe;
	return probe;
}

static void
take_out(RetryRouteState *state, int64 now)
{
	int			doublings = Min(state->times_out, 6);

	state->times_out = Min(state->times_out, 1000) + 1;
	state->weak = 0;
	state->turn = 0;
	state->out = true;
	state->out_since = now;
	state->out_until = now + Min(RETRY_ROUTE_OUT_FIRST_US << doublings, RETRY_ROUTE_OUT_MAX_US);
}

void
retry_route_ended(RetryRouteState *state, bool probe, RetryRouteEnd end, int64 now)
{
	state->in_flight--;
	if (probe)
	{
		state->probing = false;
		if (end == RETRY_ROUTE_END_WELL)
		{
			state->out = false;
			state->times_out = 0;
			state->weak = 0;
		}
		else if (end != RETRY_ROUTE_END_UNKNOWN)
			take_out(state, now);
		return;
	}
	if (state->out)
		return;
	if (end == RETRY_ROUTE_END_WELL)
		state->weak = 0;
	else if (end == RETRY_ROUTE_END_WEAK)
		state->weak++;
	if (end == RETRY_ROUTE_END_FAILED || state->weak >= RETRY_ROUTE_WEAK_LIMIT)
		take_out(state, now);
}

RetryRouteEnd
retry_route_judge(int http_status, bool body_cut)
{
	switch (http_status)
	{
		case 0:
		case 429:
		case 502:
		case 503:
		case 504:
			return RETRY_ROUTE_END_FAILED;
	}
	if (body_cut)
		return RETRY_ROUTE_END_FAILED;
	return http_status >= 500 ? RETRY_ROUTE_END_WEAK : RETRY_ROUTE_END_WELL;
}

/* Routes */

/* The targets that may be chosen now, all of them called "open" here. */
typedef struct Choice
{
	const RetryRouteTarget *targets;
	int			count;			/* of targets */
	int			nopen;
	int64		weight;			/* of the open ones together */
	int64		now;
} Choice;

static inline bool
is_open(const Choice *c, int i)
{
	return i < c->count && may_choose(&c->targets[i], c->now);
}

static inline int
next_open(const Choice *c, int i)
{
	while (i < c->count && !may_choose(&c->targets[i], c->now))
		i++;
	return i;
}

/* What a target draws for a key: the higher its weight, the higher. */
static double
draw(const RetryRouteTarget *target, uint64 key_hash)
{
	uint64		both[2] = {key_hash, target->hash};
	uint64		bits = hash_bytes_extended((unsigned char *) both, sizeof(both), 0);

	/* in (0, 1): never 0, whose logarithm there is none */
	double		u = ((double) (bits >> 11) + 0.5) / (double) (UINT64CONST(1) << 53);

	return -(double) target->weight / log(u);
}

static int
choose_hash(const Choice *c, uint64 key_hash)
{
	int			best = -1;
	double		highest = 0;

	for (int i = next_open(c, 0); i < c->count; i = next_open(c, i + 1))
	{
		double		drawn = draw(&c->targets[i], key_hash);

		if (best < 0 || drawn > highest)
		{
			best = i;
			highest = drawn;
		}
	}
	return best;
}

/* One at random, by weight, "but" (or -1) left out. */
static int
choose_random(const Choice *c, uint64 random, int but)
{
	int64		left = c->weight - (but >= 0 ? c->targets[but].weight : 0);

	left = (int64) (random % (uint64) left);
	for (int i = next_open(c, 0);; i = next_open(c, i + 1))
	{
		if (i == but)
			continue;
		left -= c->targets[i].weight;
		if (left < 0)
			return i;
	}
}

/*
 * Each round every target gains its weight and the one that has most pays for
 * all: 5:1:1 gives a a b a c a a, not a a a a a b c.
 */
static int
choose_round_robin(const Choice *c)
{
	int			best = -1;

	for (int i = next_open(c, 0); i < c->count; i = next_open(c, i + 1))
	{
		RetryRouteState *state = c->targets[i].state;

		state->turn += c->targets[i].weight;
		if (best < 0 || state->turn > c->targets[best].state->turn)
			best = i;
	}
	c->targets[best].state->turn -= c->weight;
	return best;
}

/*
 * Of two drawn by weight, the one with less under way for its weight.  Asking
 * two is nearly as good as asking all, and does not send every dispatcher to
 * the same one at once.
 */
static int
choose_least_in_flight(const Choice *c, uint64 random)
{
	int			a = choose_random(c, random & PG_UINT32_MAX, -1);
	int			b;

	if (c->nopen == 1)
		return a;
	b = choose_random(c, random >> 32, a);
	return (int64) c->targets[b].state->in_flight * c->targets[a].weight <
		(int64) c->targets[a].state->in_flight * c->targets[b].weight ? b : a;
}

static int
choose_lru(const Choice *c)
{
	int			best = next_open(c, 0);

	for (int i = next_open(c, best + 1); i < c->count; i = next_open(c, i + 1))
	{
		if (c->targets[i].state->used < c->targets[best].state->used)
			best = i;
	}
	return best;
}

static int
choose_last(const Choice *c)
{
	int			i = c->count - 1;

	while (!is_open(c, i))
		i--;
	return i;
}

/* When to ask again, since there is none to choose now. */
static int64
ask_again(const RetryRouteTarget *targets, int count, int64 now)
{
	int64		at = now + RETRY_ROUTE_OUT_FIRST_US;
	bool		any = false;

	for (int i = 0; i < count; i++)
	{
		const RetryRouteState *state = targets[i].state;
		int64		moment = state->barred_until;

		if (state->out && state->probing)
			continue;
		if (state->out)
			moment = Max(moment, state->out_until);
		at = any ? Min(at, moment) : moment;
		any = true;
	}
	return at;
}

int
retry_route_choose(RetryRoute route, const RetryRouteTarget *targets, int count,
				   uint64 key_hash, uint64 random, int64 now, int64 *retry_at)
{
	Choice		c = {targets, count, 0, 0, now};

	for (int i = next_open(&c, 0); i < count; i = next_open(&c, i + 1))
	{
		c.nopen++;
		c.weight += targets[i].weight;
	}
	if (c.nopen == 0)
	{
		*retry_at = ask_again(targets, count, now);
		return -1;
	}
	switch (route)
	{
		case RETRY_ROUTE_RANDOM:
			return choose_random(&c, random, -1);
		case RETRY_ROUTE_ROUND_ROBIN:
			return choose_round_robin(&c);
		case RETRY_ROUTE_LEAST_IN_FLIGHT:
			return choose_least_in_flight(&c, random);
		case RETRY_ROUTE_LRU:
			return choose_lru(&c);
		case RETRY_ROUTE_FIRST:
			return next_open(&c, 0);
		case RETRY_ROUTE_LAST:
			return choose_last(&c);
		default:
			return choose_hash(&c, key_hash);
	}
}
