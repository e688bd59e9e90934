/*
 * sign.h
 *		Signatures as Standard Webhooks 1.0.0 has them.
 *
 * A receiver knows by webhook-signature that a message comes from who has the
 * key, is what was sent, and is not an old one sent again.  The sender signs
 * and the receiver verifies with the same few functions, so the two cannot
 * differ in what they mean.
 *
 * A leaf: no errors raised, no clock, no tables.  Sums are the server's own
 * HMAC (common/hmac.h), which in a server needs a resource owner.
 */
#ifndef RETRY_SIGN_H
#define RETRY_SIGN_H

#include "datatype/timestamp.h"

#define RETRY_SIGN_PREFIX	"whsec_"	/* of the text of a key that signs */
#define RETRY_SIGN_KEY_MIN	24	/* bytes */
#define RETRY_SIGN_KEY_MAX	64

/* "v1," and the base64 of 32 bytes */
#define RETRY_SIGNATURE_LEN	47

typedef struct RetrySignKey
{
	int			len;			/* bytes; 0: it does not sign */
	uint8		bytes[RETRY_SIGN_KEY_MAX];
} RetrySignKey;

/* A message as it is signed.  Not terminated; body may be NULL with body_len 0. */
typedef struct RetrySigned
{
	const char *id;				/* webhook-id */
	int			id_len;
	const char *timestamp;		/* webhook-timestamp, as it is sent */
	int			timestamp_len;
	const char *body;
	size_t		body_len;
} RetrySigned;

/* Does the text begin as one of a key does?  It need not be one. */
extern bool retry_sign_is_key_like(const char *text, int len);

/*
 * Reads the text of a key, whsec_ and the base64 of 24 to 64 bytes.  False when
 * it is none; "key" has len 0 then.
 */
extern bool retry_sign_read_key(const char *text, int len, RetrySignKey *key);

/*
 * Writes one signature and a terminating zero.  False when the sum cannot be
 * made, for want of memory; "out" is empty then.
 */
extern bool retry_sign(const RetrySignKey *key, const RetrySigned *message,
					   char out[RETRY_SIGNATURE_LEN + 1]);

/*
 * Is the signature among those of a header, which are separated by spaces?
 * What another version than v1 begins with is passed over.  How long it takes
 * tells nothing of how much of a forged one is right.
 */
extern bool retry_sign_is_among(const char *signature, const char *header, size_t header_len);

/*
 * Reads webhook-timestamp: digits, at most 12 of them.  False when it is
 * something else.
 */
extern bool retry_sign_read_timestamp(const char *text, int len, int64 *unix_s);

/* A moment as webhook-timestamp has it: whole seconds since 1970. */
static inline int64
retry_sign_seconds(TimestampTz moment)
{
	return moment / USECS_PER_SEC +
		(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}

#endif							/* RETRY_SIGN_H */
