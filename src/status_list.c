/*
 * status_list.c
 *		Lists of HTTP statuses and of kinds of errors, as scenes name them.
 *
 * Both lists have one grammar: pieces between commas, blanks around them.  A
 * piece is read by a function of its list, and what that one refuses is
 * reported whole, with its place, so that whoever wrote a long list sees which
 * part of it is meant.  See status_list.h for what a piece may be.
 */
#include "postgres.h"

#include "status_list.h"

#define STATUS_HINT	"Write statuses from 100 to 599 and ranges of them, separated by commas, such as 200-299,409."
#define ERROR_HINT	"Write dns, connect, connect_timeout, tls, timeout, closed, malformed, or SQLSTATEs such as 40001, separated by commas."

static const char *const class_names[RETRY_CLASSES] = {
	"", "dns", "connect", "connect_timeout", "tls", "timeout", "closed", "malformed"
};

/* Reads one piece into its list's set; NULL, or what is wrong with it. */
typedef const char *(*ReadPiece) (const char *piece, int len, void *set);

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool
read_list(const char *text, ReadPiece read_piece, void *set, const char *hint, RetryParseError *err)
{
	int			len = strnlen(text, RETRY_STATUS_LIST_SIZE + 1);
	int			at = 0;

	if (len > RETRY_STATUS_LIST_SIZE)
		return retry_fail_part(err, 0, Min(len, 20), "begins a list that is too long", hint);
	while (at < len && is_blank(text[at]))
		at++;
	if (at == len)
		return true;			/* none */
	for (;;)
	{
		int			start = at;
		int			end;
		const char *wrong;

		while (at < len && text[at] != ',')
			at++;
		end = at;
		while (start < end && is_blank(text[start]))
			start++;
		while (end > start && is_blank(text[end - 1]))
			end--;
		if (start == end)
			return retry_fail_part(err, Min(at, len - 1), 1, "has nothing before it", hint);
		wrong = read_piece(text + start, end - start, set);
		if (wrong != NULL)
			return retry_fail_part(err, start, end - start, wrong, hint);
		if (at == len)
			return true;
		at++;
		if (at == len)
			return retry_fail_part(err, len - 1, 1, "has nothing after it", hint);
	}
}

/* A number of exactly three digits; 0 when it is none, or out of range. */
static int
read_status(const char *text, int len)
{
	int			value = 0;

	if (len != 3)
		return 0;
	for (int i = 0; i < 3; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return 0;
		value = value * 10 + (text[i] - '0');
	}
	return value >= RETRY_STATUS_MIN && value <= RETRY_STATUS_MAX ? value : 0;
}

static const char *
read_statuses(const char *piece, int len, void *opaque)
{
	RetryStatusSet *set = opaque;
	const char *dash = memchr(piece, '-', len);
	int			first_len = dash != NULL ? dash - piece : len;
	int			first;
	int			last;

	while (first_len > 0 && is_blank(piece[first_len - 1]))
		first_len--;
	first = last = read_status(piece, first_len);
	if (dash != NULL)
	{
		const char *second = dash + 1;

		while (second < piece + len && is_blank(*second))
			second++;
		last = read_status(second, piece + len - second);
	}
	if (first == 0 || last == 0)
		return "is neither a status from 100 to 599 nor a range of them";
	if (first > last)
		return "is a range that ends before it begins";
	for (int status = first; status <= last; status++)
		set->bits[(status - RETRY_STATUS_MIN) / 32] |= UINT32_C(1) << (status - RETRY_STATUS_MIN) % 32;
	return NULL;
}

bool
retry_status_list_parse(const char *text, RetryStatusSet *set, RetryParseError *err)
{
	memset(set, 0, sizeof(*set));
	return read_list(text, read_statuses, set, STATUS_HINT, err);
}

bool
retry_status_set_has(const RetryStatusSet *set, int status)
{
	if (status < RETRY_STATUS_MIN || status > RETRY_STATUS_MAX)
		return false;
	status -= RETRY_STATUS_MIN;
	return (set->bits[status / 32] >> status % 32 & 1) != 0;
}

static bool
is_sqlstate(const char *text, int len)
{
	if (len != 5)
		return false;
	for (int i = 0; i < 5; i++)
	{
		if (!(text[i] >= '0' && text[i] <= '9') && !(text[i] >= 'A' && text[i] <= 'Z'))
			return false;
	}
	/* those are no errors */
	return strncmp(text, "00", 2) != 0 && strncmp(text, "01", 2) != 0 && strncmp(text, "02", 2) != 0;
}

static const char *
read_error(const char *piece, int len, void *opaque)
{
	RetryErrorSet *set = opaque;

	for (int i = 1; i < RETRY_CLASSES; i++)
	{
		if ((int) strlen(class_names[i]) == len && strncmp(class_names[i], piece, len) == 0)
		{
			set->classes |= UINT32_C(1) << i;
			return NULL;
		}
	}
	if (!is_sqlstate(piece, len))
		return "is neither a class of errors nor an SQLSTATE of one";
	if (set->nstates == RETRY_ERROR_SET_STATES)
		return "is one SQLSTATE more than the 32 that a list may have";
	set->states[set->nstates++] = MAKE_SQLSTATE(piece[0], piece[1], piece[2], piece[3], piece[4]);
	return NULL;
}

bool
retry_error_list_parse(const char *text, RetryErrorSet *set, RetryParseError *err)
{
	memset(set, 0, sizeof(*set));
	return read_list(text, read_error, set, ERROR_HINT, err);
}

bool
retry_error_set_has(const RetryErrorSet *set, RetryErrorClass error_class, int sqlstate)
{
	if (error_class > RETRY_CLASS_NONE && error_class < RETRY_CLASSES &&
		(set->classes >> error_class & 1) != 0)
		return true;
	for (int i = 0; sqlstate != 0 && i < set->nstates; i++)
	{
		if (set->states[i] == sqlstate)
			return true;
	}
	return false;
}

const char *
retry_error_class_name(RetryErrorClass error_class)
{
	return error_class > RETRY_CLASS_NONE && error_class < RETRY_CLASSES ?
		class_names[error_class] : "";
}
