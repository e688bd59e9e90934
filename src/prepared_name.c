/*
 * prepared_name.c
 *		Writes and reads names of prepared transactions.
 *
 * A name that is read here makes somebody roll back what has it, so one that
 * only looks like ours is none: what was read must be written the same again.
 */
#include "postgres.h"

#include "prepared_name.h"

#define PREFIX	"retry_"

void
retry_prepared_name_write(const RetryPreparedName *name, char *text)
{
	char		gid[37];
	char	   *to = gid;

	for (int i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		to += sprintf(to, "%02x", name->gid[i]);
	}
	snprintf(text, RETRY_PREPARED_NAME_MAX, PREFIX "%llu_%u_%s_%d_%llu",
			 (unsigned long long) name->system, (unsigned int) name->database, gid, name->branch,
			 (unsigned long long) name->xid);
}

/* A number and what ends it; false when there is none. */
static bool
read_number(const char **from, char end, unsigned long long *number)
{
	char	   *after;

	if (**from < '0' || **from > '9')
		return false;
	*number = strtoull(*from, &after, 10);
	if (*after != end)
		return false;
	*from = end == '\0' ? after : after + 1;
	return true;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
read_gid(const char **from, unsigned char *gid)
{
	const char *at = *from;

	for (int i = 0; i < 16; i++)
	{
		int			high;
		int			low;

		if (*at == '-')
			at++;
		high = hex_digit(*at);
		low = high < 0 ? -1 : hex_digit(at[1]);
		if (low < 0)
			return false;
		gid[i] = (unsigned char) (high << 4 | low);
		at += 2;
	}
	if (*at != '_')
		return false;
	*from = at + 1;
	return true;
}

bool
retry_prepared_name_read(const char *text, RetryPreparedName *name)
{
	const char *at = text;
	char		again[RETRY_PREPARED_NAME_MAX];
	unsigned long long number;

	if (strncmp(at, PREFIX, strlen(PREFIX)) != 0)
		return false;
	at += strlen(PREFIX);
	if (!read_number(&at, '_', &number))
		return false;
	name->system = number;
	if (!read_number(&at, '_', &number) || number > UINT32_MAX)
		return false;
	name->database = (uint32_t) number;
	if (!read_gid(&at, name->gid) || !read_number(&at, '_', &number) || number > INT32_MAX)
		return false;
	name->branch = (int) number;
	if (!read_number(&at, '\0', &number))
		return false;
	name->xid = number;
	retry_prepared_name_write(name, again);
	return strcmp(again, text) == 0;
}
