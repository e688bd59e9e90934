/*
 * backoff_text.c
 *		The text form of retry.backoff: a strict reader and a canonical writer.
 *
 * A mistyped policy is otherwise noticed on the day it is needed, so the
 * reader takes nothing that it does not understand entirely, and tells which
 * part it was.  Keywords are case-insensitive and white space is free between
 * them.  The writer uses the largest unit that is exact and leaves out what is
 * the default, so that equal values have equal texts.
 *
 * A leaf like backoff.c: nothing is allocated and no error is raised.
 */
#include "postgres.h"

#include "backoff.h"
#include "compat.h"

#define MSECS_PER_SECOND	1000
#define MSECS_PER_MINUTE	(60 * MSECS_PER_SECOND)
#define MSECS_PER_HOUR		(60 * MSECS_PER_MINUTE)
#define MSECS_PER_DAY		(24 * MSECS_PER_HOUR)

/* Keywords, indexed by the numbers that stand for them. */
static const char *const kind_names[] = {
	NULL, "fixed", "linear", "exponential", "levels", "levels", "random", "cron"
};
static const char *const jitter_names[] = {
	"none", "full", "equal", "decorrelated", NULL
};

static const struct
{
	const char *name;
	int64		ms;
}			units[] = {
	{"d", MSECS_PER_DAY},
	{"h", MSECS_PER_HOUR},
	{"m", MSECS_PER_MINUTE},
	{"s", MSECS_PER_SECOND},
	{"ms", 1},
};

#define FORM_HINT \
	"Write fixed 30s, linear 10s max 5m, exponential 1s factor 2 max 1h, levels 10s,30s,1m, random 5s..60s or cron '*/5 * * * *', then optionally jitter."
#define DURATION_HINT \
	"Write one whole number and one of the units ms, s, m, h, d, such as 500ms or 90s; at most 365d."
#define LADDER_HINT \
	"Write delays separated by commas, or one of easyretry, rocketmq, standard-webhooks, best-effort."
#define JITTER_HINT \
	"Write none, full, equal, decorrelated, or a whole percentage from 0% to 100%."
#define FACTOR_HINT \
	"A factor is a number from 1 to 100 with at most three decimals."
#define ZONE_HINT \
	"Write the name of a time zone, such as Europe/Paris; see pg_timezone_names."

/*
 * Reading
 */

typedef struct Parser
{
	const char *text;
	int			at;				/* the next byte */
	int			part;			/* where the last token began */
	RetryBackoff *out;
	RetryParseError *err;
} Parser;

static void
skip_space(Parser *p)
{
	while (retry_is_space(p->text[p->at]))
		p->at++;
}

static bool
at_end(Parser *p)
{
	skip_space(p);
	return p->text[p->at] == '\0';
}

/* Refuse what was read since p->part. */
static bool
refuse(Parser *p, const char *reason, const char *hint)
{
	return retry_fail_part(p->err, p->part, p->at - p->part, reason, hint);
}

/* Refuse it together with the rest of the word that it is a part of. */
static bool
refuse_word(Parser *p, const char *reason, const char *hint)
{
	if (p->at == p->part && p->text[p->at] == ',')
		p->at++;
	while (p->text[p->at] != '\0' && p->text[p->at] != ',' &&
		   !retry_is_space(p->text[p->at]))
		p->at++;
	return refuse(p, reason, hint);
}

/* Refuse the text for what does not follow; names the last word there is. */
static bool
refuse_missing(Parser *p, const char *reason, const char *hint)
{
	int			end = p->at;

	while (end > 0 && retry_is_space(p->text[end - 1]))
		end--;
	p->at = end;
	while (end > 0 && !retry_is_space(p->text[end - 1]))
		end--;
	p->part = end;
	return refuse(p, reason, hint);
}

/* Is this byte part of a word?  Every byte of a non-ASCII character is. */
static bool
is_word(char c)
{
	return retry_is_letter(c) || retry_is_digit(c) || c == '_' || c == '-' ||
		(c & 0x80) != 0;
}

/* Does a word from..p->at equal a keyword (given in lower case)? */
static bool
word_is(const Parser *p, const char *keyword)
{
	int			len = p->at - p->part;

	for (int i = 0; i < len; i++)
	{
		if (keyword[i] == '\0' ||
			retry_lower(p->text[p->part + i]) != keyword[i])
			return false;
	}
	return keyword[len] == '\0';
}

/* Step over the word that follows; false if there is none. */
static bool
next_word(Parser *p)
{
	skip_space(p);
	p->part = p->at;
	while (is_word(p->text[p->at]))
		p->at++;
	return p->at > p->part;
}

/* Read digits; a number too large for any use comes back as 10^11. */
static int64
digits(Parser *p)
{
	int64		value = 0;

	for (; retry_is_digit(p->text[p->at]); p->at++)
		value = Min(value * 10 + (p->text[p->at] - '0'),
					INT64CONST(100000000000));
	return value;
}

/*
 * Read a duration.  On success p->part..p->at is its place, so that the caller
 * can still refuse it.
 */
static bool
parse_duration(Parser *p, int64 *ms)
{
	int64		value;
	int			number;
	int			number_end;

	if (at_end(p))
		return refuse_missing(p, "must be followed by a duration",
							  DURATION_HINT);
	number = p->part = p->at;
	if (!retry_is_digit(p->text[p->at]))
		return refuse_word(p, "is not a duration", DURATION_HINT);
	value = digits(p);
	number_end = p->at;
	skip_space(p);
	p->part = p->at;
	while (retry_is_letter(p->text[p->at]))
		p->at++;
	for (int i = 0; i < lengthof(units); i++)
	{
		if (!word_is(p, units[i].name))
			continue;
		p->part = number;
		if (is_word(p->text[p->at]))
			return refuse_word(p, "is not a duration of one number and one unit",
							   DURATION_HINT);
		if (value * units[i].ms > RETRY_BACKOFF_LIMIT_MS)
			return refuse(p, "is longer than 365 days", DURATION_HINT);
		*ms = value * units[i].ms;
		return true;
	}
	p->part = number;
	p->at = number_end;
	return refuse_word(p, "is a number without a known unit", DURATION_HINT);
}

/* Read the delays, or the name, of "levels". */
static bool
parse_levels(Parser *p)
{
	RetryBackoff *b = p->out;

	skip_space(p);
	if (retry_is_letter(p->text[p->at]))
	{
		next_word(p);
		for (int i = 1; retry_backoff_ladder(i) != NULL; i++)
		{
			if (!word_is(p, retry_backoff_ladder(i)->name))
				continue;
			b->kind = RETRY_BACKOFF_LADDER;
			b->ladder = i;
			return true;
		}
		return refuse_word(p, "is not the name of a list of levels",
						   LADDER_HINT);
	}
	for (;;)
	{
		int64		ms = 0;

		if (!parse_duration(p, &ms))
			return false;
		if (b->nlevels >= RETRY_BACKOFF_MAX_LEVELS)
			return refuse(p, "is one level too many",
						  "A list has at most 64 levels; the last one repeats.");
		b->u.levels_ms[b->nlevels++] = ms;
		skip_space(p);
		if (p->text[p->at] != ',')
			return true;
		p->at++;
	}
}

/* Read the bounds of "random". */
static bool
parse_random(Parser *p)
{
	RetryBackoff *b = p->out;
	int			end;

	if (!parse_duration(p, &b->base_ms))
		return false;
	end = p->at;
	skip_space(p);
	if (p->text[p->at] != '.' || p->text[p->at + 1] != '.')
	{
		p->at = end;
		return refuse_word(p, "must be followed by .. and a longest delay",
						   "Write the shortest and the longest delay, such as random 5s..60s.");
	}
	p->at += 2;
	if (!parse_duration(p, &b->max_ms))
		return false;
	if (b->max_ms < b->base_ms)
		return refuse(p, "is shorter than the delay that it follows",
					  "Write the shorter delay first.");
	return true;
}

/* Read the quoted schedule of "cron". */
static bool
parse_schedule(Parser *p)
{
	char		quote;
	int			start;

	if (at_end(p))
		return refuse_missing(p, "must be followed by a schedule in quotes",
							  "Write cron '*/5 9-17 * * mon-fri'; inside an SQL string each quote is doubled.");
	p->part = p->at;
	quote = p->text[p->at];
	if (quote != '\'' && quote != '"')
		return refuse_word(p, "is not a schedule in quotes",
						   "Write cron '*/5 9-17 * * mon-fri'; inside an SQL string each quote is doubled.");
	start = ++p->at;
	while (p->text[p->at] != '\0' && p->text[p->at] != quote)
		p->at++;
	if (p->text[p->at] == '\0')
		return refuse(p, "lacks its closing quote", FORM_HINT);
	p->at++;
	if (!retry_cron_parse(p->text + start, p->at - 1 - start,
						  &p->out->u.cron.schedule, p->err))
	{
		p->err->part_at += start;
		/* an empty schedule: show its quotes */
		if (p->err->part_len == 0)
		{
			p->err->part_at = p->part;
			p->err->part_len = p->at - p->part;
		}
		return false;
	}
	return true;
}

/* Read the number after "factor". */
static bool
parse_factor(Parser *p)
{
	int64		milli;

	if (at_end(p))
		return refuse_missing(p, "must be followed by a number", FACTOR_HINT);
	p->part = p->at;
	if (!retry_is_digit(p->text[p->at]))
		return refuse_word(p, "is not a factor", FACTOR_HINT);
	milli = digits(p) * 1000;
	if (p->text[p->at] == '.' && retry_is_digit(p->text[p->at + 1]))
	{
		p->at++;
		for (int unit = 100; unit > 0 && retry_is_digit(p->text[p->at]);
			 unit /= 10)
			milli += (p->text[p->at++] - '0') * unit;
	}
	if (is_word(p->text[p->at]) || p->text[p->at] == '.' ||
		milli < 1000 || milli > 100000)
		return refuse_word(p, "is not a factor", FACTOR_HINT);
	p->out->factor_milli = (int32) milli;
	return true;
}

/* Read the word or percentage after "jitter". */
static bool
parse_jitter(Parser *p)
{
	RetryBackoff *b = p->out;

	if (at_end(p))
		return refuse_missing(p, "must be followed by a kind of jitter",
							  JITTER_HINT);
	p->part = p->at;
	if (retry_is_digit(p->text[p->at]))
	{
		int64		percent = digits(p);

		skip_space(p);
		if (p->text[p->at] != '%' || percent > 100)
			return refuse_word(p, "is not a kind of jitter", JITTER_HINT);
		p->at++;
		b->jitter = percent == 0 ? RETRY_JITTER_NONE : RETRY_JITTER_PERCENT;
		b->percent = (uint8) percent;
		return true;
	}
	next_word(p);
	for (int i = 0; i < lengthof(jitter_names); i++)
	{
		if (jitter_names[i] == NULL || !word_is(p, jitter_names[i]))
			continue;
		b->jitter = i;
		if (i == RETRY_JITTER_DECORRELATED && b->kind != RETRY_BACKOFF_CRON &&
			retry_backoff_first_ms(b) == 0)
			return refuse(p, "jitter cannot grow from a first delay of zero",
						  "Begin with a delay above zero, or use jitter full.");
		return true;
	}
	return refuse_word(p, "is not a kind of jitter", JITTER_HINT);
}

/* Read the name after "tz"; only its characters are checked here. */
static bool
parse_zone(Parser *p)
{
	char		name[RETRY_BACKOFF_ZONE_SIZE];
	bool		good = true;
	int			len;

	if (at_end(p))
		return refuse_missing(p, "must be followed by a time zone", ZONE_HINT);
	p->part = p->at;
	for (; p->text[p->at] != '\0' && !retry_is_space(p->text[p->at]); p->at++)
	{
		char		c = p->text[p->at];

		good = good && ((is_word(c) && !(c & 0x80)) || c == '/' || c == '+');
	}
	len = p->at - p->part;
	if (!good || len >= RETRY_BACKOFF_ZONE_SIZE)
		return refuse(p, "is not the name of a time zone", ZONE_HINT);
	memcpy(name, p->text + p->part, len);
	name[len] = '\0';
	retry_backoff_set_zone_name(p->out, name);
	return true;
}

/* Read the words that may follow the form, each at most once. */
static bool
parse_options(Parser *p)
{
	RetryBackoff *b = p->out;
	bool		growing = b->kind == RETRY_BACKOFF_LINEAR ||
	b->kind == RETRY_BACKOFF_EXPONENTIAL;
	struct
	{
		const char *name;
		bool		allowed;
	}			options[] = {
		{"max", growing},
		{"factor", b->kind == RETRY_BACKOFF_EXPONENTIAL},
		{"tz", b->kind == RETRY_BACKOFF_CRON},
		{"jitter", true},
	};

	while (!at_end(p))
	{
		int			i = 0;
		bool		good;

		next_word(p);
		while (i < lengthof(options) && !word_is(p, options[i].name))
			i++;
		if (i == lengthof(options))
			return refuse_word(p, "is not expected here", FORM_HINT);
		if (!options[i].allowed)
			return refuse_word(p, "does not belong to this form, or is given twice",
							   FORM_HINT);
		options[i].allowed = false;
		switch (i)
		{
			case 0:
				good = parse_duration(p, &b->max_ms);
				if (good && b->max_ms < b->base_ms)
					good = refuse(p, "is a max below the first delay",
								  "Write a max that is at least the first delay.");
				break;
			case 1:
				good = parse_factor(p);
				break;
			case 2:
				good = parse_zone(p);
				break;
			default:
				good = parse_jitter(p);
				break;
		}
		if (!good)
			return false;
	}
	return true;
}

/* Read what follows the keyword of a form. */
static bool
parse_form(Parser *p)
{
	RetryBackoff *b = p->out;

	switch (b->kind)
	{
		case RETRY_BACKOFF_LEVELS:
			return parse_levels(p);
		case RETRY_BACKOFF_RANDOM:
			return parse_random(p);
		case RETRY_BACKOFF_CRON:
			return parse_schedule(p);
		case RETRY_BACKOFF_FIXED:
			return parse_duration(p, &b->base_ms);
		default:
			if (!parse_duration(p, &b->base_ms))
				return false;
			if (b->base_ms == 0)
				return refuse(p, "cannot grow",
							  "Begin with a delay above zero.");
			b->max_ms = RETRY_BACKOFF_LIMIT_MS;
			if (b->kind == RETRY_BACKOFF_EXPONENTIAL)
				b->factor_milli = 2000;
			return true;
	}
}

/*
 * Read a backoff.
 *
 * text is terminated by a zero and may be in any encoding that a server can
 * have.  Returns false and fills *err if it is malformed, with *out undefined.
 * Otherwise *out is complete, its varlena size set.  The name of a time zone is
 * not looked up: that is the caller's to do.
 *
 * Bounds: every delay is 0 to 365 days (the first of linear and exponential at
 * least 1 ms, as is the first of any form with decorrelated jitter), factors 1
 * to 100, up to 64 levels.
 */
bool
retry_backoff_parse(const char *text, RetryBackoff *out, RetryParseError *err)
{
	Parser		p = {text, 0, 0, out, err};
	Size		size = offsetof(RetryBackoff, u);

	memset(out, 0, sizeof(*out));
	out->version = RETRY_BACKOFF_VERSION;
	if (at_end(&p))
		return retry_fail_part(err, 0, 0, "is empty", FORM_HINT);
	next_word(&p);
	for (int kind = RETRY_BACKOFF_CRON; kind >= RETRY_BACKOFF_FIXED; kind--)
	{
		if (kind != RETRY_BACKOFF_LADDER && word_is(&p, kind_names[kind]))
			out->kind = kind;
	}
	if (out->kind == 0)
		return refuse_word(&p, "is not a form of backoff", FORM_HINT);
	if (!parse_form(&p) || !parse_options(&p))
		return false;

	if (out->kind == RETRY_BACKOFF_LEVELS)
		size += out->nlevels * sizeof(int64);
	else if (out->kind == RETRY_BACKOFF_CRON)
		size += sizeof(out->u.cron);
	SET_VARSIZE(out, size);
	return true;
}

/*
 * The time zone of a cron form ("UTC" if it names none), NULL for the others.
 * Points into *b or to a constant.
 */
const char *
retry_backoff_zone_name(const RetryBackoff *b)
{
	if (b->kind != RETRY_BACKOFF_CRON)
		return NULL;
	return b->u.cron.zone[0] ? b->u.cron.zone : "UTC";
}

/*
 * Replace the time zone of a cron form, for instance by its proper spelling;
 * a name that does not fit is cut.
 */
void
retry_backoff_set_zone_name(RetryBackoff *b, const char *name)
{
	int			len = 0;

	memset(b->u.cron.zone, 0, RETRY_BACKOFF_ZONE_SIZE);
	if (pg_strcasecmp(name, "UTC") == 0)
		return;
	for (; name[len] != '\0' && len < RETRY_BACKOFF_ZONE_SIZE - 1; len++)
		b->u.cron.zone[len] = name[len];
}

/*
 * Writing
 */

typedef struct Out
{
	char	   *buf;
	Size		size;
	Size		len;
} Out;

static void put(Out *out, const char *fmt,...) pg_attribute_printf(2, 3);

static void
put(Out *out, const char *fmt,...)
{
	Size		room = out->len < out->size ? out->size - out->len : 0;
	va_list		args;

	va_start(args, fmt);
	out->len += vsnprintf(room > 0 ? out->buf + out->len : NULL, room, fmt,
						  args);
	va_end(args);
}

static void
put_duration(Out *out, int64 ms)
{
	int			i = 0;

	while (ms % units[i].ms != 0)
		i++;
	if (ms == 0)
		put(out, "0s");
	else
		put(out, INT64_FORMAT "%s", ms / units[i].ms, units[i].name);
}

static void
put_factor(Out *out, int32 milli)
{
	int			decimals = milli % 1000;
	int			width = 3;

	put(out, " factor %d", milli / 1000);
	if (decimals == 0)
		return;
	while (decimals % 10 == 0)
	{
		decimals /= 10;
		width--;
	}
	put(out, ".%0*d", width, decimals);
}

/*
 * Write the canonical text, which reads back to the same value, into buf;
 * always terminated if size is not 0.  Returns its length; as with snprintf, a
 * length of size or more means that it was cut.  RETRY_BACKOFF_TEXT_SIZE is
 * always enough.
 */
int
retry_backoff_format(const RetryBackoff *b, char *buf, Size size)
{
	Out			out = {buf, size, 0};
	char		schedule[RETRY_CRON_TEXT_SIZE];

	put(&out, "%s ", kind_names[b->kind]);
	switch (b->kind)
	{
		case RETRY_BACKOFF_LEVELS:
			for (int i = 0; i < b->nlevels; i++)
			{
				if (i > 0)
					put(&out, ",");
				put_duration(&out, b->u.levels_ms[i]);
			}
			break;
		case RETRY_BACKOFF_LADDER:
			put(&out, "%s", retry_backoff_ladder(b->ladder)->name);
			break;
		case RETRY_BACKOFF_CRON:
			retry_cron_format(&b->u.cron.schedule, schedule, sizeof(schedule));
			put(&out, "'%s'", schedule);
			if (b->u.cron.zone[0])
				put(&out, " tz %s", b->u.cron.zone);
			break;
		default:
			put_duration(&out, b->base_ms);
	}
	if (b->kind == RETRY_BACKOFF_EXPONENTIAL)
		put_factor(&out, b->factor_milli);
	if (b->kind == RETRY_BACKOFF_RANDOM)
		put(&out, "..");
	else if (b->max_ms > 0 && b->max_ms < RETRY_BACKOFF_LIMIT_MS)
		put(&out, " max ");
	if (b->kind == RETRY_BACKOFF_RANDOM ||
		(b->max_ms > 0 && b->max_ms < RETRY_BACKOFF_LIMIT_MS))
		put_duration(&out, b->max_ms);
	if (b->jitter == RETRY_JITTER_PERCENT)
		put(&out, " jitter %d%%", b->percent);
	else if (b->jitter != RETRY_JITTER_NONE)
		put(&out, " jitter %s", jitter_names[b->jitter]);
	return (int) out.len;
}
