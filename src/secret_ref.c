/*
 * secret_ref.c
 *		References to secrets in texts: {{secret:name}}; see secret_ref.h.
 *
 * A text that opens a reference must complete it: what nearly is one would be
 * sent as it stands, and nobody would know why the receiver refuses it.
 */
#include "postgres.h"

#include "secret_ref.h"

#define OPENING		"{{secret:"
#define OPENING_LEN	((int) sizeof(OPENING) - 1)

static bool
is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

RetrySecretFound
retry_secret_ref_next(const char *text, int len, int from, RetrySecretRef *ref)
{
	for (int i = from; i <= len - OPENING_LEN; i++)
	{
		int			end;

		if (text[i] != '{' || memcmp(text + i, OPENING, OPENING_LEN) != 0)
			continue;
		ref->at = i;
		ref->name_at = end = i + OPENING_LEN;
		while (end < len && is_name_byte(text[end]))
			end++;
		ref->name_len = end - ref->name_at;
		if (ref->name_len < 1 || ref->name_len > RETRY_SECRET_NAME_MAX ||
			len - end < 2 || text[end] != '}' || text[end + 1] != '}')
			return RETRY_SECRET_REF_BAD;
		ref->end = end + 2;
		return RETRY_SECRET_REF_GOOD;
	}
	return RETRY_SECRET_REF_NONE;
}
