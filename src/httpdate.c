/*
 * httpdate.c
 *	  Reads Retry-After: seconds, or one of the three date forms of HTTP.
 *
 * Receivers are free to choose any of the forms, and old servers still send
 * the obsolete two.  The parser works on a length, not on a terminator, since
 * header values arrive as slices of curl's buffer; it has no locale and no
 * time zone, which strptime and timegm would bring in.
 */
#include "postgres.h"

#include "httpdate.h"

/* What is still to be read. */
typedef struct Cursor
{
	const char *at;
	const char *end;
} Cursor;

static const char *const month_names[12] = {
	"jan", "feb", "mar", "apr", "may", "jun",
	"jul", "aug", "sep", "oct", "nov", "dec"
};

static const char *const day_names[7] = {
	"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"
};

typedef struct DateParts
{
	int			year;
	int			month;			/* 1..12 */
	int			day;
	int			hour;
	int			minute;
	int			second;
} DateParts;

static bool
take_char(Cursor *c, char expected)
{
	if (c->at >= c->end || *c->at != expected)
		return false;
	c->at++;
	return true;
}

/* Exactly the letters of word, in any case. */
static bool
take_word(Cursor *c, const char *word, size_t len)
{
	size_t		i;

	if ((size_t) (c->end - c->at) < len)
		return false;
	for (i = 0; i < len; i++)
		if ((c->at[i] | 0x20) != word[i])
			return false;
	c->at += len;
	return true;
}

/* Exactly count digits. */
static bool
take_digits(Cursor *c, int count, int *value)
{
	int			i;

	if (c->end - c->at < count)
		return false;
	*value = 0;
	for (i = 0; i < count; i++)
	{
		if (c->at[i] < '0' || c->at[i] > '9')
			return false;
		*value = *value * 10 + (c->at[i] - '0');
	}
	c->at += count;
	return true;
}

static bool
take_month(Cursor *c, int *month)
{
	int			i;

	for (i = 0; i < 12; i++)
		if (take_word(c, month_names[i], 3))
		{
			*month = i + 1;
			return true;
		}
	return false;
}

static bool
take_time(Cursor *c, DateParts *p)
{
	return take_digits(c, 2, &p->hour) && take_char(c, ':') &&
		take_digits(c, 2, &p->minute) && take_char(c, ':') &&
		take_digits(c, 2, &p->second);
}

static bool
take_gmt(Cursor *c)
{
	return take_char(c, ' ') &&
		(take_word(c, "gmt", 3) || take_word(c, "utc", 3));
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar. */
static int64
days_from_civil(int year, int month, int day)
{
	/* count years from March, so that the leap day is the last of a year */
	int64		y = month > 2 ? year : year - 1;
	int64		era = y / 400;
	int64		of_era = y - era * 400;
	int64		of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool
parts_to_unix(const DateParts *p, int64 *unix_time)
{
	static const int lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = (p->year % 4 == 0 && p->year % 100 != 0) || p->year % 400 == 0;
	int			last;

	if (p->year < 1 || p->month < 1 || p->month > 12)
		return false;
	last = lengths[p->month - 1] + (p->month == 2 && leap ? 1 : 0);
	/* 60 is a leap second */
	if (p->day < 1 || p->day > last || p->hour > 23 || p->minute > 59 || p->second > 60)
		return false;
	*unix_time = days_from_civil(p->year, p->month, p->day) * 86400 +
		p->hour * 3600 + p->minute * 60 + p->second;
	return true;
}

/* "06 Nov 1994 08:49:37 GMT", after the day's name and its comma. */
static bool
take_imf_rest(Cursor *c, DateParts *p)
{
	return take_digits(c, 2, &p->day) && take_char(c, ' ') &&
		take_month(c, &p->month) && take_char(c, ' ') &&
		take_digits(c, 4, &p->year) && take_char(c, ' ') &&
		take_time(c, p) && take_gmt(c);
}

/*
 * "06-Nov-94 08:49:37 GMT".  The year is the one nearest to now that ends in
 * the two digits and is not more than 50 years ahead (RFC 9110, 5.6.7).
 */
static bool
take_rfc850_rest(Cursor *c, DateParts *p, int64 now_unix)
{
	int			now_year;

	if (!(take_digits(c, 2, &p->day) && take_char(c, '-') &&
		  take_month(c, &p->month) && take_char(c, '-') &&
		  take_digits(c, 2, &p->year) && take_char(c, ' ') &&
		  take_time(c, p) && take_gmt(c)))
		return false;

	/* a year is 31556952 s on average; off by a day at New Year is harmless */
	if (now_unix < 0 || now_unix > INT64CONST(250000000000))
		now_unix = 0;
	now_year = 1970 + (int) (now_unix / 31556952);
	p->year += now_year - now_year % 100;
	if (p->year > now_year + 50)
		p->year -= 100;
	else if (p->year <= now_year - 50)
		p->year += 100;
	return true;
}

/* "Nov  6 08:49:37 1994", after the day's name and its blank. */
static bool
take_asctime_rest(Cursor *c, DateParts *p)
{
	if (!(take_month(c, &p->month) && take_char(c, ' ')))
		return false;
	if (take_char(c, ' '))
	{
		if (!take_digits(c, 1, &p->day))
			return false;
	}
	else if (!take_digits(c, 2, &p->day))
		return false;
	return take_char(c, ' ') && take_time(c, p) && take_char(c, ' ') &&
		take_digits(c, 4, &p->year);
}

bool
retry_httpdate_parse(const char *text, size_t len, int64 now_unix, int64 *unix_time)
{
	Cursor		c;
	DateParts	parts = {0};
	bool		ok = false;
	int			i;

	c.at = text;
	c.end = text + len;

	/*
	 * The day's name tells the forms apart.  Whether it is the right name for
	 * the date is not held against the sender.
	 */
	for (i = 0; i < 7; i++)
	{
		if (take_word(&c, day_names[i], strlen(day_names[i])))
		{
			ok = take_char(&c, ',') && take_char(&c, ' ') &&
				take_rfc850_rest(&c, &parts, now_unix);
			break;
		}
		if (take_word(&c, day_names[i], 3))
		{
			if (take_char(&c, ','))
				ok = take_char(&c, ' ') && take_imf_rest(&c, &parts);
			else
				ok = take_char(&c, ' ') && take_asctime_rest(&c, &parts);
			break;
		}
	}
	return ok && c.at == c.end && parts_to_unix(&parts, unix_time);
}

RetryRetryAfter
retry_after_parse(const char *value, size_t len, int64 now_unix)
{
	RetryRetryAfter result = {RETRY_AFTER_NONE, 0};
	int64		seconds = 0;
	size_t		i;

	while (len > 0 && (*value == ' ' || *value == '\t'))
		value++, len--;
	while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t' ||
					   value[len - 1] == '\r' || value[len - 1] == '\n'))
		len--;
	if (len == 0)
		return result;

	if (value[0] < '0' || value[0] > '9')
	{
		if (retry_httpdate_parse(value, len, now_unix, &result.value))
			result.kind = RETRY_AFTER_DATE;
		else
			result.value = 0;
		return result;
	}

	for (i = 0; i < len; i++)
	{
		if (value[i] < '0' || value[i] > '9')
			return result;

		/*
		 * beyond thirty years it is all the same: stop counting, keep
		 * checking
		 */
		if (seconds < 1000000000)
			seconds = seconds * 10 + (value[i] - '0');
	}
	result.kind = RETRY_AFTER_SECONDS;
	result.value = seconds;
	return result;
}

int64
retry_after_delay_us(const RetryRetryAfter *after, int64 now_unix_us, int64 cap_us)
{
	int64		seconds = after->value;

	if (after->kind == RETRY_AFTER_NONE)
		return -1;
	if (after->kind == RETRY_AFTER_DATE)
	{
		int64		delay = seconds * 1000000 - now_unix_us;

		if (delay <= 0)
			return 0;
		return Min(delay, cap_us);
	}
	if (seconds > cap_us / 1000000)
		return cap_us;
	return seconds * 1000000;
}
