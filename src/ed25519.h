/*
 * ed25519.h
 *		Signatures by ed25519 (RFC 8032), where there is OpenSSL.
 *
 * A leaf; memory is malloc'd and given back before it returns.  Each function is
 * false when OpenSSL was not there at build time, or refuses.
 */
#ifndef RETRY_ED25519_H
#define RETRY_ED25519_H

#define RETRY_ED25519_KEY	32	/* bytes of a private key, and of a public one */
#define RETRY_ED25519_SIGNATURE 64

/* Was the extension built with it? */
extern bool retry_ed25519_here(void);

/* The public key that belongs to a private one. */
extern bool retry_ed25519_public(const uint8 *private, uint8 *public);

extern bool retry_ed25519_sign(const uint8 *private, const char *message, size_t len, uint8 *signature);
extern bool retry_ed25519_verify(const uint8 *public, const char *message, size_t len, const uint8 *signature);

#endif							/* RETRY_ED25519_H */
