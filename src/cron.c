/*
 * cron.c
 *		Five-field cron schedules: parsing, canonical text, next occurrence.
 *
 * A retry can be bound to hours in which somebody is there to see it fail, so
 * a backoff can be a cron schedule.  The fields are kept as bit sets: finding
 * the next occurrence is then a short search without any memory allocation.
 *
 * Local time and daylight saving follow Vixie cron.  A schedule whose hour
 * field is "*" or "*" with a step follows the clock on the wall: it skips the
 * hour that is missing in spring and fires in both of the doubled hours in
 * autumn.  Any other schedule names certain hours and is kept to once a day:
 * times that fall into a gap fire once, at the moment of the jump, and times
 * that occur twice fire at the first.
 */
#include "postgres.h"

#include "cron.h"

#define UNIX_TO_PG_SECONDS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* No two occurrences of any schedule are further apart than 40 years. */
#define HORIZON_SECONDS		((int64) 50 * 366 * SECS_PER_DAY)

/* Offset changes that far back can still matter: no gap or overlap is longer. */
#define LOOKBACK_SECONDS	((int64) 2 * SECS_PER_DAY)

typedef struct Field
{
	int			low;
	int			high;
	const char *names;			/* three letters each, from low on; or NULL */
	const char *range_hint;
} Field;

enum
{
	MINUTE, HOUR, DAY, MONTH, WEEKDAY, FIELDS
};

static const Field fields[FIELDS] = {
	{0, 59, NULL, "A minute is a number from 0 to 59."},
	{0, 23, NULL, "An hour is a number from 0 to 23."},
	{1, 31, NULL, "A day of the month is a number from 1 to 31."},
	{1, 12, "janfebmaraprmayjunjulaugsepoctnovdec",
	"A month is a number from 1 to 12 or one of jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec."},
	{0, 7, "sunmontuewedthufrisatsun",
	"A day of the week is a number from 0 to 7 (0 and 7 are Sunday) or one of sun, mon, tue, wed, thu, fri, sat."},
};

#define FIELDS_HINT \
	"Write five fields: minute, hour, day of month, month, day of week; or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually."
#define ITEM_HINT \
	"A field is *, */step, or a list of values, ranges a-b and ranges with a step a-b/step, separated by commas."

static const struct
{
	const char *name;
	const char *text;
}			shorthands[] = {
	{"@hourly", "0 * * * *"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@weekly", "0 0 * * 0"},
	{"@monthly", "0 0 1 * *"},
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
};

/*
 * Parsing
 */

/* One item of a field's list while it is read: text[at] is next. */
typedef struct Item
{
	const char *text;
	int			start;
	int			end;
	int			at;
	const Field *field;
	RetryParseError *err;
} Item;

/* Refuse the whole item. */
static bool
fail_item(const Item *item, const char *reason, const char *hint)
{
	return retry_fail_part(item->err, item->start, item->end - item->start, reason, hint);
}

/* Does the item go on with this character?  Then step over it. */
static bool
take(Item *item, char c)
{
	if (item->at >= item->end || item->text[item->at] != c)
		return false;
	item->at++;
	return true;
}

/* Read a number; one too large for any use comes back as PG_INT32_MAX. */
static int
parse_number(Item *item)
{
	int			value = 0;

	while (item->at < item->end && retry_is_digit(item->text[item->at]))
	{
		value = value > 100000 ? PG_INT32_MAX :
			value * 10 + (item->text[item->at] - '0');
		item->at++;
	}
	return value;
}

/* Read a name of the field; -1 if it is none. */
static int
parse_name(Item *item)
{
	const char *word = item->text + item->at;
	const char *name = item->field->names;
	int			len = 0;

	while (item->at < item->end && retry_is_letter(item->text[item->at]))
	{
		item->at++;
		len++;
	}
	for (int i = 0; name && *name && len == 3; name += 3, i++)
	{
		if (retry_lower(word[0]) == name[0] && retry_lower(word[1]) == name[1] &&
			retry_lower(word[2]) == name[2])
			return item->field->low + i;
	}
	return -1;
}

/* Read one value, a number or a name.  false: the error is filled. */
static bool
parse_value(Item *item, int *value)
{
	int			start = item->at;

	if (start < item->end && retry_is_digit(item->text[start]))
		*value = parse_number(item);
	else if (start < item->end && retry_is_letter(item->text[start]))
		*value = parse_name(item);
	else
		return fail_item(item, "is not a value, range or step", ITEM_HINT);
	if (*value < item->field->low || *value > item->field->high)
		return retry_fail_part(item->err, start, item->at - start,
							   "is out of range for this field", item->field->range_hint);
	return true;
}

/* Read one item and add its bits. */
static bool
parse_item(Item *item, uint64 *bits)
{
	bool		week = item->field == &fields[WEEKDAY];
	int			first = item->field->low;
	int			last = week ? 6 : item->field->high;
	int			step = 1;
	bool		range = take(item, '*');

	if (!range)
	{
		if (!parse_value(item, &first))
			return false;
		last = first;
		range = take(item, '-');
		if (range && !parse_value(item, &last))
			return false;
		/* "fri-sun" ends with the Sunday after, not the one before */
		if (week && last == 0 && first > 0 && retry_is_letter(item->text[item->at - 1]))
			last = 7;
		if (last < first)
			return fail_item(item, "is a range that runs backwards",
							 "Write two ranges separated by a comma, such as 22-23,0-4 or fri-sun,mon.");
	}
	if (take(item, '/'))
	{
		int			step_at = item->at;

		if (!range)
			return fail_item(item, "is a step without a range",
							 "Write */step or first-last/step.");
		step = parse_number(item);
		if (item->at == step_at)
			return fail_item(item, "lacks the number of its step", ITEM_HINT);
		if (step < 1 || (step > 1 && step > last - first))
			return retry_fail_part(item->err, step_at, item->at - step_at,
								   "is a step of zero or longer than its range",
								   "A step is at least 1 and at most the distance from the first to the last value of its range.");
	}
	if (item->at < item->end)
		return fail_item(item, "is not a value, range or step", ITEM_HINT);
	Assert(first >= 0 && step > 0);
	for (int v = first; v <= last; v += step)
		*bits |= UINT64CONST(1) << (week ? v % 7 : v);
	return true;
}

/* Read one field, a list of items separated by commas. */
static bool
parse_field(const char *text, int start, int end, const Field *field,
			uint64 *bits, bool *star, RetryParseError *err)
{
	*bits = 0;
	*star = text[start] == '*' && memchr(text + start, ',', end - start) == NULL;

	for (int at = start;; at++)
	{
		Item		item = {text, at, at, at, field, err};

		while (item.end < end && text[item.end] != ',')
			item.end++;
		if (item.end == at)
			return retry_fail_part(err, start, end - start, "has an empty place in its list",
								   ITEM_HINT);
		if (!parse_item(&item, bits))
			return false;
		at = item.end;
		if (at >= end)
			return true;
	}
}

/* The days of a month, in the longest of years. */
static int
longest_month(int month)
{
	return month == 2 ? 29 : (month == 4 || month == 6 || month == 9 ||
							  month == 11) ? 30 : 31;
}

/* Is there any month in which one of the days exists? */
static bool
has_possible_date(const RetryCron *cron)
{
	/* when both are restricted, the day of the week alone is enough */
	if (!(cron->flags & (RETRY_CRON_DAY_STAR | RETRY_CRON_WEEKDAY_STAR)))
		return true;
	for (int month = 1; month <= 12; month++)
	{
		for (int day = 1; day <= longest_month(month); day++)
		{
			if ((cron->months & (1U << month)) && (cron->days & (1U << day)))
				return true;
		}
	}
	return false;
}

static bool
is_shorthand(const char *text, int len, const char *name)
{
	for (int i = 0; i < len; i++)
	{
		if (name[i] == '\0' || retry_lower(text[i]) != name[i])
			return false;
	}
	return name[len] == '\0';
}

/*
 * Read a schedule: five fields separated by white space, or a shorthand.
 *
 * text need not be terminated; len is its bytes.  Returns false and fills *err
 * (places are relative to text) if the text is malformed or names a date that
 * never comes.  *out is complete, with zeros where nothing is said, only when
 * true is returned.
 *
 * If neither the day of the month nor the day of the week is written with a
 * leading "*", a day matches when either does, otherwise when both do; that is
 * Vixie cron's rule, and why the stars are remembered.
 */
bool
retry_cron_parse(const char *text, int len, RetryCron *out,
				 RetryParseError *err)
{
	uint64		bits[FIELDS];
	bool		star[FIELDS];
	int			at = 0;
	int			first;

	while (at < len && retry_is_space(text[at]))
		at++;
	first = at;
	while (len > at && retry_is_space(text[len - 1]))
		len--;
	if (at < len && text[at] == '@')
	{
		for (int i = 0; i < lengthof(shorthands); i++)
		{
			const char *full = shorthands[i].text;

			if (is_shorthand(text + at, len - at, shorthands[i].name))
				return retry_cron_parse(full, (int) strlen(full), out, err);
		}
		return retry_fail_part(err, at, len - at, "is not a known shorthand", FIELDS_HINT);
	}
	for (int f = 0; f < FIELDS; f++)
	{
		int			start = at;

		while (at < len && !retry_is_space(text[at]))
			at++;
		if (at == start)
			return retry_fail_part(err, first, len - first,
								   "has fewer than five fields", FIELDS_HINT);
		if (!parse_field(text, start, at, &fields[f], &bits[f], &star[f], err))
			return false;
		while (at < len && retry_is_space(text[at]))
			at++;
	}
	if (at < len)
		return retry_fail_part(err, at, len - at, "follows the fifth field", FIELDS_HINT);

	memset(out, 0, sizeof(*out));
	out->minutes = bits[MINUTE];
	out->hours = (uint32) bits[HOUR];
	out->days = (uint32) bits[DAY];
	out->months = (uint16) bits[MONTH];
	out->weekdays = (uint8) bits[WEEKDAY];
	out->flags = (star[HOUR] ? RETRY_CRON_HOUR_STAR : 0) |
		(star[DAY] ? RETRY_CRON_DAY_STAR : 0) |
		(star[WEEKDAY] ? RETRY_CRON_WEEKDAY_STAR : 0);
	if (!has_possible_date(out))
		return retry_fail_part(err, first, len - first, "names a date that never comes",
							   "No month of the schedule has such a day.");
	return true;
}

/*
 * Canonical text
 */

/* A piece of output that counts what it had no room for. */
typedef struct Out
{
	char	   *buf;
	Size		size;
	Size		len;
} Out;

static void
put_char(Out *out, char c)
{
	if (out->len + 1 < out->size)
		out->buf[out->len] = c;
	out->len++;
}

static void
put_value(Out *out, const Field *field, int value)
{
	if (field->names)
	{
		for (int i = 0; i < 3; i++)
			put_char(out, field->names[(value - field->low) * 3 + i]);
		return;
	}
	if (value >= 10)
		put_char(out, '0' + value / 10);
	put_char(out, '0' + value % 10);
}

static void
put_step(Out *out, int step)
{
	put_char(out, '/');
	if (step >= 10)
		put_char(out, '0' + step / 10);
	put_char(out, '0' + step % 10);
}

/* The next set bit at or after "from", or 64. */
static int
next_bit(uint64 bits, int from)
{
	while (from < 64 && !(bits & (UINT64CONST(1) << from)))
		from++;
	return from;
}

/*
 * The step n for which the bits are those of "*" with step n, or 0.  The last
 * value of a field is the place where the pattern may end early.
 */
static int
star_step(uint64 bits, int low, int high)
{
	int			step = next_bit(bits, low + 1) - low;
	uint64		pattern = 0;

	if (step > high - low)
		return 0;
	for (int v = low; v <= high; v += step)
		pattern |= UINT64CONST(1) << v;
	return pattern == bits ? step : 0;
}

/* Write the bits as values, ranges, and ranges with a step. */
static void
put_list(Out *out, const Field *field, uint64 bits)
{
	bool		more = false;

	for (int v = next_bit(bits, 0); v < 64;)
	{
		int			step = next_bit(bits, v + 1) - v;
		int			last = v;
		int			count = 1;

		while (last + step < 64 && next_bit(bits, last + 1) == last + step)
		{
			last += step;
			count++;
		}
		if (more)
			put_char(out, ',');
		more = true;
		put_value(out, field, v);
		if (count >= 3)
		{
			put_char(out, '-');
			put_value(out, field, last);
			if (step > 1)
				put_step(out, step);
			v = last;
		}
		v = next_bit(bits, v + 1);
	}
}

static void
put_field(Out *out, int f, uint64 bits, bool star, bool star_matters)
{
	const Field *field = &fields[f];
	int			high = f == WEEKDAY ? 6 : field->high;
	int			step = star_step(bits, field->low, high);
	int			span = high - field->low + 1;

	/*
	 * Minutes and months mean the same with and without a star: use it where
	 * it reads well.
	 */
	if (!star_matters)
		star = step > 0 && (span % step == 0 || step * 2 < span);
	if (f > MINUTE)
		put_char(out, ' ');
	if (star && step > 0)
	{
		put_char(out, '*');
		if (step > 1)
			put_step(out, step);
		return;
	}
	/* a range that runs over the weekend ends with its Sunday */
	if (f == WEEKDAY && (bits & 0x41) == 0x41)
		bits = (bits & 0x7E) | 0x80;
	put_list(out, field, bits);
}

/*
 * Write the canonical text of a schedule into buf, always terminated if size
 * is not 0.  Returns its length; as with snprintf, a length of size or more
 * means that it was cut.  RETRY_CRON_TEXT_SIZE is always enough.
 */
int
retry_cron_format(const RetryCron *cron, char *buf, Size size)
{
	Out			out = {buf, size, 0};

	put_field(&out, MINUTE, cron->minutes, false, false);
	put_field(&out, HOUR, cron->hours,
			  (cron->flags & RETRY_CRON_HOUR_STAR) != 0, true);
	put_field(&out, DAY, cron->days,
			  (cron->flags & RETRY_CRON_DAY_STAR) != 0, true);
	put_field(&out, MONTH, cron->months, false, false);
	put_field(&out, WEEKDAY, cron->weekdays,
			  (cron->flags & RETRY_CRON_WEEKDAY_STAR) != 0, true);
	if (size > 0)
		buf[Min(out.len, size - 1)] = '\0';
	return (int) out.len;
}

/*
 * Next occurrence.  "Local" below is what the clock on the wall shows, in
 * seconds since 1970-01-01 00:00 on that clock; days are counted likewise.
 */

static int64
floor_div(int64 a, int64 b)
{
	return a / b - (a % b < 0 ? 1 : 0);
}

static bool
is_leap(int64 year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/*
 * Split a day into year, month and day of the month.  Counted in years that
 * begin in March, so that the leap day is the last: the length of everything
 * before a date is then a formula.
 */
static void
split_day(int64 day, int64 *year, int *month, int *mday)
{
	int64		since = day + 719468;	/* 0000-03-01 */
	int64		era = floor_div(since, 146097);
	int			doe = (int) (since - era * 146097);
	int			yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int			doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int			mp = (5 * doy + 2) / 153;

	*mday = doy - (153 * mp + 2) / 5 + 1;
	*month = mp < 10 ? mp + 3 : mp - 9;
	*year = era * 400 + yoe + (*month <= 2 ? 1 : 0);
}

static bool
day_matches(const RetryCron *cron, int mday, int64 day)
{
	int			weekday = (int) (((day + 4) % 7 + 7) % 7);	/* 1970: a Thursday */
	bool		by_day = (cron->days & (1U << mday)) != 0;
	bool		by_weekday = (cron->weekdays & (1U << weekday)) != 0;

	if (cron->flags & (RETRY_CRON_DAY_STAR | RETRY_CRON_WEEKDAY_STAR))
		return by_day && by_weekday;
	return by_day || by_weekday;
}

/* The first matching minute of a day at or after "from", or -1. */
static int
minute_of_day(const RetryCron *cron, int from)
{
	for (int hour = from / 60; hour < 24; hour++)
	{
		int			minute = hour == from / 60 ? from % 60 : 0;

		if (!(cron->hours & (1U << hour)))
			continue;
		minute = next_bit(cron->minutes, minute);
		if (minute < 60)
			return hour * 60 + minute;
	}
	return -1;
}

/* The first matching local time in [from, until).  false: there is none. */
static bool
next_local(const RetryCron *cron, int64 from, int64 until, int64 *found)
{
	int64		minute = floor_div(from + 59, 60);
	int64		day = floor_div(minute, MINS_PER_HOUR * HOURS_PER_DAY);
	int			start = (int) (minute - day * MINS_PER_HOUR * HOURS_PER_DAY);

	while (day * SECS_PER_DAY < until)
	{
		int64		year;
		int			month;
		int			mday;

		split_day(day, &year, &month, &mday);
		if (!(cron->months & (1U << month)))
			day += longest_month(month) - mday + 1 -
				(month == 2 && !is_leap(year) ? 1 : 0);
		else
		{
			int			at = day_matches(cron, mday, day) ?
			minute_of_day(cron, start) : -1;

			if (at >= 0)
			{
				*found = day * SECS_PER_DAY + at * SECS_PER_MINUTE;
				return *found < until;
			}
			day++;
		}
		start = 0;
	}
	return false;
}

static void
ask_zone(const RetryZone *zone, int64 at, int32 *offset, int64 *change)
{
	*offset = 0;
	*change = PG_INT64_MAX;
	if (zone && zone->next_change)
		zone->next_change(zone->opaque, at, offset, change);
	/* a zone that stands still would keep us here for ever */
	if (*change <= at)
		*change = PG_INT64_MAX;
}

/* retry_cron_next, in seconds since 1970: the first occurrence >= from. */
static bool
next_in_zone(const RetryCron *cron, int64 from, const RetryZone *zone,
			 int64 *found)
{
	bool		wild = (cron->flags & RETRY_CRON_HOUR_STAR) != 0;
	int64		horizon = from + HORIZON_SECONDS;
	int64		begin = from - LOOKBACK_SECONDS;
	int64		change;
	int32		offset;
	int32		before;

	ask_zone(zone, begin, &offset, &change);
	before = offset;

	/* one turn for each stretch of time in which the offset is the same */
	for (;;)
	{
		int64		low = Max(from, begin) + offset;
		int64		high = Min(change, horizon) + offset;
		int64		local;

		if (!wild && offset > before && from <= begin &&
			next_local(cron, begin + before, begin + offset, &local))
		{
			*found = begin;
			return true;
		}
		if (!wild && offset < before)
			low = Max(low, begin + before);
		if (next_local(cron, low, high, &local))
		{
			*found = local - offset;
			return true;
		}
		if (change >= horizon)
			return false;
		begin = change;
		before = offset;
		ask_zone(zone, begin, &offset, &change);
	}
}

/*
 * Find the first occurrence strictly after a moment.
 *
 * zone tells what local time is; NULL means UTC.  Returns false, with *next
 * untouched, only if the answer is outside the range of timestamps (or after
 * is an infinity).  Allocates nothing and does not fail.
 */
bool
retry_cron_next(const RetryCron *cron, TimestampTz after,
				const RetryZone *zone, TimestampTz *next)
{
	int64		from;
	int64		found;

	if (after < MIN_TIMESTAMP || after >= END_TIMESTAMP)
		return false;
	from = floor_div(after, USECS_PER_SEC) + 1 + UNIX_TO_PG_SECONDS;
	if (!next_in_zone(cron, from, zone, &found))
		return false;
	found -= UNIX_TO_PG_SECONDS;
	if (found >= END_TIMESTAMP / USECS_PER_SEC)
		return false;
	*next = found * USECS_PER_SEC;
	return true;
}
