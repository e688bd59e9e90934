/*
 * secret_ref.h
 *		References to secrets in texts: {{secret:name}}.
 *
 * A leaf.  Whoever checks a header when it is stored, and whoever fills it in
 * when it is sent, find the same references in it.
 */
#ifndef RETRY_SECRET_REF_H
#define RETRY_SECRET_REF_H

#define RETRY_SECRET_NAME_MAX	63	/* bytes */

typedef struct RetrySecretRef
{
	int			at;				/* where it begins in the text */
	int			end;			/* behind it */
	int			name_at;
	int			name_len;
} RetrySecretRef;

typedef enum RetrySecretFound
{
	RETRY_SECRET_REF_NONE,
	RETRY_SECRET_REF_GOOD,
	RETRY_SECRET_REF_BAD		/* {{secret: without a name and }}; only "at"
								 * is set */
} RetrySecretFound;

/*
 * The first reference at or after "from" in a text of "len" bytes, which need
 * not be terminated.
 */
extern RetrySecretFound retry_secret_ref_next(const char *text, int len, int from,
											  RetrySecretRef *ref);

#endif							/* RETRY_SECRET_REF_H */
