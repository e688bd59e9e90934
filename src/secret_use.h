/*
 * secret_use.h
 *		How the secret of a scene gets into its requests, where that is not the
 *		header of Standard Webhooks.
 *
 * Chat robots and pagers each want to see that a message is ours in a way of
 * their own, some with the time of the attempt, so it is done for each attempt.
 *
 * A leaf: no errors raised, no clock, no tables.
 */
#ifndef RETRY_SECRET_USE_H
#define RETRY_SECRET_USE_H

#include <stddef.h>

/* As column secret_use of retry.scene says. */
typedef enum RetrySecretUse
{
	RETRY_USE_WEBHOOK,			/* header webhook-signature, see sign.h */
	RETRY_USE_DINGTALK,			/* parameters of the URL */
	RETRY_USE_FEISHU,			/* members of the body, which is a JSON object */
	RETRY_USE_PAGERDUTY,		/* a member of it: the secret itself */
	RETRY_USE_EMAIL,			/* the password for a mail server */
	RETRY_USES
} RetrySecretUse;

/* By its word; false when there is none such. */
extern bool retry_secret_use_named(const char *word, RetrySecretUse *use);

/* So many bytes are enough for what is written with a secret of this length. */
extern size_t retry_secret_use_room(size_t secret_len);

/*
 * Writes what is added to the URL ("timestamp=...&sign=...") or to the object
 * ("\"sign\":\"...\"", without a comma), terminated, and returns its length.  The
 * moment is in milliseconds since 1970.  0 when memory is short, and for
 * RETRY_USE_WEBHOOK and RETRY_USE_EMAIL.
 */
extern size_t retry_secret_use_write(RetrySecretUse use, const char *secret, size_t secret_len,
									 int64 unix_ms, char *out);

/*
 * Where members can be put into a JSON object: the offset behind its brace.  0
 * when the body is no object.  *empty: it has no members yet.
 */
extern size_t retry_secret_use_place(const char *body, size_t body_len, bool *empty);

#endif							/* RETRY_SECRET_USE_H */
