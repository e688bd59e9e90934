/*
 * pem.h
 *		Certificates and keys as text (PEM), judged when they are stored.
 *
 * What a scene trusts and what it shows of itself are texts that somebody pasted.
 * A wrong one should be refused when it is stored, not be found out by the first
 * attempt.  A leaf: nothing is remembered, no error raised.  Where the extension
 * was built without OpenSSL only the form of the text is judged.
 */
#ifndef RETRY_PEM_H
#define RETRY_PEM_H

#define RETRY_PEM_MAX_BYTES		(64 * 1024) /* of a client certificate with
											 * its key, and of a scene's
											 * authorities */

/* Does the text hold a part of that kind?  It need not be good. */
extern bool retry_pem_is_like(const char *text, int len);

/*
 * Is the text one certificate or more, and no private key?  False with the reason
 * in "why", which shows nothing of the text.
 */
extern bool retry_pem_check_authorities(const char *text, int len, char *why, size_t size);

/*
 * Is the text a client certificate, perhaps with those of its issuers behind it,
 * and the private key that belongs to it, before or after, not encrypted?
 */
extern bool retry_pem_check_identity(const char *text, int len, char *why, size_t size);

#endif							/* RETRY_PEM_H */
