/*
 * decision.c
 *		Reads commit or rollback out of what a check was answered.
 *
 * This is no JSON parser: it walks over an object once, counting brackets and
 * minding strings, and looks at the members of the outermost level only.  What
 * it cannot follow, to the closing bracket at the very end, says nothing; so a
 * body that was cut is never taken for an answer.
 */
#include "decision.h"

typedef struct Text
{
	const char *at;
	const char *end;
} Text;

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void
skip_blanks(Text *text)
{
	while (text->at < text->end && is_blank(*text->at))
		text->at++;
}

RetryDecision
retry_decision_of_word(const char *word, size_t len)
{
	if (len == strlen("commit") && memcmp(word, "commit", len) == 0)
		return RETRY_COMMIT;
	if (len == strlen("rollback") && memcmp(word, "rollback", len) == 0)
		return RETRY_ROLLBACK;
	return RETRY_UNDECIDED;
}

const char *
retry_decision_word(RetryDecision decision)
{
	switch (decision)
	{
		case RETRY_COMMIT:
			return "commit";
		case RETRY_ROLLBACK:
			return "rollback";
		default:
			return "undecided";
	}
}

/* The string that begins here, without its quotes and as it is written. */
static bool
read_string(Text *text, const char **string, size_t *len)
{
	if (text->at == text->end || *text->at != '"')
		return false;
	*string = ++text->at;
	while (text->at < text->end && *text->at != '"')
	{
		if (*text->at == '\\')
			text->at++;
		if (text->at < text->end)
			text->at++;
	}
	if (text->at >= text->end)
		return false;
	*len = text->at++ - *string;
	return true;
}

/* Passes over a value, to the comma or bracket after it. */
static bool
skip_value(Text *text)
{
	int			depth = 0;
	const char *string;
	size_t		len;

	while (text->at < text->end)
	{
		char		c = *text->at;

		if (c == '"')
		{
			if (!read_string(text, &string, &len))
				return false;
			continue;
		}
		if (depth == 0 && (c == ',' || c == '}'))
			return true;
		if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
		if (depth < 0)
			return false;
		text->at++;
	}
	return false;
}

/* One member of the object; what it decides is put into *said. */
static bool
read_member(Text *text, RetryDecision *said, int *named)
{
	const char *name;
	const char *value;
	size_t		name_len;
	size_t		len;

	skip_blanks(text);
	if (!read_string(text, &name, &name_len))
		return false;
	skip_blanks(text);
	if (text->at == text->end || *text->at++ != ':')
		return false;
	skip_blanks(text);
	if (name_len == strlen("decision") && memcmp(name, "decision", name_len) == 0)
	{
		Text		start = *text;

		(*named)++;
		if (read_string(&start, &value, &len))
			*said = retry_decision_of_word(value, len);
	}
	return skip_value(text);
}

static RetryDecision
read_object(Text *text)
{
	RetryDecision said = RETRY_UNDECIDED;
	int			named = 0;

	do
	{
		text->at++;				/* over the bracket, then over the commas */
		if (!read_member(text, &said, &named))
			return RETRY_UNDECIDED;
	} while (*text->at == ',');
	text->at++;
	return text->at == text->end && named == 1 ? said : RETRY_UNDECIDED;
}

RetryDecision
retry_decision_read(const char *body, size_t len)
{
	Text		text = {body, body + len};
	const char *string;
	size_t		string_len;

	while (text.end > text.at && is_blank(text.end[-1]))
		text.end--;
	skip_blanks(&text);
	if (text.at == text.end)
		return RETRY_UNDECIDED;
	if (*text.at == '{')
		return read_object(&text);
	if (*text.at == '"')
		return read_string(&text, &string, &string_len) && text.at == text.end ?
			retry_decision_of_word(string, string_len) : RETRY_UNDECIDED;
	return retry_decision_of_word(text.at, text.end - text.at);
}
