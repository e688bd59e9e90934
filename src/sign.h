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
 * HMAC (common/hmac.h), which in a server needs a resource owner; ed25519 is
 * OpenSSL's, and nobody's where the extension was built without.
 */
#ifndef RETRY_SIGN_H
#define RETRY_SIGN_H

#include "datatype/timestamp.h"

#define RETRY_SIGN_PREFIX	"whsec_"	/* of the text of a key for sums */
#define RETRY_SIGN_PRIVATE_PREFIX	"whsk_" /* of one of ed25519 that signs */
#define RETRY_SIGN_PUBLIC_PREFIX	"whpk_" /* and of one that only verifies */
#define RETRY_SIGN_KEY_MIN	24	/* bytes of a key for sums */
#define RETRY_SIGN_KEY_MAX	64	/* of any */
#define RETRY_SIGN_KEY_HINT \
	"A key is written whsec_ and the base64 of 24 to 64 bytes, or whsk_ and that of an ed25519 key, of 32 or 64."

/* A signature, "v1," and the base64 of 32 bytes or "v1a," and that of 64. */
#define RETRY_SIGNATURE_MAX	92

/* The text of a public key: whpk_ and the base64 of 32 bytes. */
#define RETRY_SIGN_PUBLIC_TEXT	49

typedef enum RetrySignKind
{
	RETRY_SIGN_NONE,
	RETRY_SIGN_HMAC,
	RETRY_SIGN_PRIVATE,			/* ed25519 */
	RETRY_SIGN_PUBLIC			/* ed25519; it does not sign */
} RetrySignKind;

typedef struct RetrySignKey
{
	RetrySignKind kind;
	int			len;			/* bytes; 0: there is no key */
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

/* As which key does the text begin, and how long is that?  It need not be one. */
extern RetrySignKind retry_sign_kind(const char *text, int len, int *prefix_len);

/*
 * Reads the text of a key: whsec_ and the base64 of 24 to 64 bytes, whsk_ and
 * that of 32, perhaps followed by those of its public key, or whpk_ and that of
 * 32.  False when it is none; "key" has len 0 then.
 */
extern bool retry_sign_read_key(const char *text, int len, RetrySignKey *key);

/*
 * Writes one signature and a terminating zero.  False when it cannot be made, for
 * want of memory or by a public key; "out" is empty then.
 */
extern bool retry_sign(const RetrySignKey *key, const RetrySigned *message,
					   char out[RETRY_SIGNATURE_MAX + 1]);

/* The text of the public key of a private one; false of any other. */
extern bool retry_sign_public_key(const RetrySignKey *key, char out[RETRY_SIGN_PUBLIC_TEXT + 1]);

/*
 * Is one of the signatures of a header, which are separated by spaces, by this
 * key?  False when that cannot be found out, for want of memory.
 */
extern bool retry_sign_verify(const RetrySignKey *key, const RetrySigned *message,
							  const char *header, size_t header_len, bool *good);

/*
 * Is the signature among those of a header, which are separated by spaces?
 * What another version begins with is passed over.  How long it takes
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
