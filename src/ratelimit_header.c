/*
 * ratelimit_header.c
 *		What an answer's headers say of how many requests are still welcome.
 *
 * An endpoint that says "none left, again in 30 s" with a success wants to be
 * believed as much as one that says so with a 429 a moment later.  The trouble
 * is that everybody says it differently: the reset is a number of seconds from
 * now with some, the second or millisecond since 1970 with others, and its
 * header does not tell.  Its size does: nobody announces a pause of 30 years.
 *
 * What is left (remaining) and when there is more (reset) must both be there,
 * and be readable; whoever writes nonsense is not waited for.
 */
#include "postgres.h"

#include "ratelimit_header.h"

/* From here on a number is a second since 1970 (2001), from here on a millisecond. */
#define EPOCH_SECONDS		INT64CONST(1000000000)
#define EPOCH_MILLISECONDS	INT64CONST(100000000000)

/* From here on it is neither (2255), nor has it room in millionths. */
#define TOO_LARGE			INT64CONST(9000000000000)

/* A slice of a header's value. */
typedef struct Slice
{
	const char *at;
	const char *end;
} Slice;

static inline bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static Slice
trim(const char *at, const char *end)
{
	Slice		s = {at, end};

	while (s.at < s.end && is_blank(*s.at))
		s.at++;
	while (s.at < s.end && is_blank(s.end[-1]))
		s.end--;
	return s;
}

/* Is it this word, which is in lower case, in any case? */
static bool
is_word(Slice s, const char *word)
{
	size_t		len = strlen(word);

	if ((size_t) (s.end - s.at) != len)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (pg_ascii_tolower((unsigned char) s.at[i]) != (unsigned char) word[i])
			return false;
	}
	return true;
}

/* Goes on behind this word if it begins with it. */
static bool
skip_word(Slice *s, const char *word)
{
	size_t		len = strlen(word);
	Slice		start = {s->at, s->at + len};

	if ((size_t) (s->end - s->at) < len || !is_word(start, word))
		return false;
	s->at += len;
	return true;
}

/*
 * Reads digits, perhaps with a fraction, as millionths; false when it is
 * anything else or beyond all bounds.
 */
static bool
read_number(Slice s, int64 *millionths)
{
	int64		whole = 0;
	int64		unit = 1000000;

	if (s.at >= s.end || *s.at < '0' || *s.at > '9')
		return false;
	for (; s.at < s.end && *s.at >= '0' && *s.at <= '9'; s.at++)
	{
		whole = whole * 10 + (*s.at - '0');
		if (whole >= TOO_LARGE)
			return false;
	}
	*millionths = whole * 1000000;
	if (s.at == s.end)
		return true;
	if (*s.at != '.' || s.end - s.at < 2)
		return false;
	for (s.at++; s.at < s.end; s.at++)
	{
		if (*s.at < '0' || *s.at > '9')
			return false;
		unit /= 10;
		*millionths += unit * (*s.at - '0');
	}
	return true;
}

/* The value without the parameters that a structured field may have. */
static Slice
without_parameters(Slice s)
{
	const char *semicolon = memchr(s.at, ';', s.end - s.at);

	return semicolon != NULL ? trim(s.at, semicolon) : s;
}

static void
note_remaining(RetryRateLimitPair *pair, Slice s)
{
	int64		millionths;

	if (pair->has_remaining || !read_number(without_parameters(s), &millionths))
		return;
	pair->has_remaining = true;

	/* what is not enough for a request is nothing */
	pair->used_up = millionths < 1000000;
}

/* A number of seconds, or since 1970, or a date. */
static void
note_reset(RetryRateLimitPair *pair, Slice s, int64 now_unix)
{
	int64		value;

	if (pair->reset.kind != RETRY_AFTER_NONE)
		return;
	if (read_number(without_parameters(s), &value))
	{
		pair->reset.kind = RETRY_AFTER_SECONDS;
		if (value >= EPOCH_SECONDS * 1000000)
			pair->reset.kind = RETRY_AFTER_DATE;
		if (value >= EPOCH_MILLISECONDS * 1000000)
			value /= 1000;
		pair->reset.value = value;
	}
	else if (retry_httpdate_parse(s.at, s.end - s.at, now_unix, &value))
	{
		pair->reset.kind = RETRY_AFTER_DATE;
		pair->reset.value = value * 1000000;
	}
}

/* A number of seconds and nothing else; it counts before the other. */
static void
note_reset_after(RetryRateLimitPair *pair, Slice s)
{
	int64		value;

	if (pair->has_after || !read_number(s, &value))
		return;
	pair->has_after = true;
	pair->reset.kind = RETRY_AFTER_SECONDS;
	pair->reset.value = value;
}

/* The end of a piece of a structured field; NULL when a quote is not closed. */
static const char *
piece_end(const char *at, const char *end, bool whole_member)
{
	bool		quoted = false;

	for (; at < end; at++)
	{
		if (quoted && *at == '\\' && at + 1 < end)
			at++;
		else if (*at == '"')
			quoted = !quoted;
		else if (!quoted && (*at == ',' || (*at == ';' && !whole_member)))
			break;
	}
	return quoted ? NULL : at;
}

/* What one member of RateLimit says. */
typedef struct Member
{
	int64		remaining;		/* in millionths; -1: not said */
	int64		reset_us;		/* likewise */
} Member;

/*
 * "name";r=0;t=30 or, in a draft between, remaining=0 and reset=30 as members of
 * their own.
 */
static void
read_piece(Slice s, Member *member)
{
	const char *equals = memchr(s.at, '=', s.end - s.at);
	Slice		key;
	Slice		value;
	int64		number;

	if (equals == NULL || *s.at == '"')
		return;
	key = trim(s.at, equals);
	value = trim(equals + 1, s.end);
	if (!read_number(value, &number))
		return;
	if (is_word(key, "r") || is_word(key, "remaining"))
		member->remaining = number;
	else if ((is_word(key, "t") || is_word(key, "reset")) && number < EPOCH_SECONDS * 1000000)
		member->reset_us = number;
}

static int64
member_wait(const Member *member)
{
	return member->remaining >= 0 && member->remaining < 1000000 ? Max(member->reset_us, 0) : 0;
}

/* All members; a field that is malformed says nothing at all. */
static int64
read_structured(Slice s)
{
	Member		loose = {-1, -1};
	int64		wait = 0;

	while (s.at < s.end)
	{
		const char *end = piece_end(s.at, s.end, true);
		Member		member = {-1, -1};
		bool		parameters = false;

		if (end == NULL)
			return 0;
		while (s.at < end)
		{
			const char *piece = piece_end(s.at, end, false);
			Slice		trimmed;

			if (piece == NULL)
				return 0;
			trimmed = trim(s.at, piece);
			if (trimmed.at < trimmed.end)
				read_piece(trimmed, parameters ? &member : &loose);
			parameters = true;
			s.at = piece < end ? piece + 1 : end;
		}
		wait = Max(wait, member_wait(&member));
		s.at = end < s.end ? end + 1 : s.end;
	}
	return Max(wait, member_wait(&loose));
}

bool
retry_ratelimit_field(RetryRateLimit *limit, const char *name, size_t name_len,
					  const char *value, size_t len, int64 now_unix)
{
	Slice		what = {name, name + name_len};
	Slice		s = trim(value, value + len);
	RetryRateLimitPair *pair = &limit->plain;

	if (is_word(what, "ratelimit"))
	{
		limit->structured_us = Max(limit->structured_us, read_structured(s));
		return true;
	}
	if (name_len > 2 && (name[0] == 'x' || name[0] == 'X') && name[1] == '-')
	{
		pair = &limit->x;
		what.at += 2;
	}
	if (!skip_word(&what, "ratelimit-") && !skip_word(&what, "rate-limit-"))
		return false;

	if (is_word(what, "remaining"))
		note_remaining(pair, s);
	else if (is_word(what, "reset"))
		note_reset(pair, s, now_unix);
	else if (is_word(what, "reset-after"))
		note_reset_after(pair, s);
	return true;
}

static int64
pair_wait(const RetryRateLimitPair *pair, int64 now_unix_us)
{
	if (!pair->used_up || pair->reset.kind == RETRY_AFTER_NONE)
		return 0;
	if (pair->reset.kind == RETRY_AFTER_SECONDS)
		return pair->reset.value;
	return pair->reset.value > now_unix_us ? pair->reset.value - now_unix_us : 0;
}

int64
retry_ratelimit_wait_us(const RetryRateLimit *limit, int64 now_unix_us, int64 cap_us)
{
	int64		wait = limit->structured_us;

	wait = Max(wait, pair_wait(&limit->plain, now_unix_us));
	wait = Max(wait, pair_wait(&limit->x, now_unix_us));
	return Min(wait, cap_us);
}
