/*
 * ed25519.c
 *		Signatures by ed25519 (RFC 8032), where there is OpenSSL; see ed25519.h.
 *
 * PostgreSQL has sums of its own, but no such signatures; so this is the one file
 * that needs OpenSSL to sign, and without it says that it cannot.
 */
#include "postgres.h"

#ifdef RETRY_OPENSSL
#include <openssl/err.h>
#include <openssl/evp.h>
#endif

#include "ed25519.h"

#ifdef RETRY_OPENSSL

bool
retry_ed25519_here(void)
{
	return true;
}

bool
retry_ed25519_public(const uint8 *private, uint8 *public)
{
	EVP_PKEY   *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private, RETRY_ED25519_KEY);
	size_t		len = RETRY_ED25519_KEY;
	bool		good = key != NULL && EVP_PKEY_get_raw_public_key(key, public, &len) == 1;

	EVP_PKEY_free(key);
	ERR_clear_error();
	return good;
}

bool
retry_ed25519_sign(const uint8 *private, const char *message, size_t len, uint8 *signature)
{
	EVP_PKEY   *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private, RETRY_ED25519_KEY);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	size_t		signature_len = RETRY_ED25519_SIGNATURE;
	bool		good;

	good = key != NULL && context != NULL &&
		EVP_DigestSignInit(context, NULL, NULL, NULL, key) == 1 &&
		EVP_DigestSign(context, signature, &signature_len, (const uint8 *) message, len) == 1;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return good;
}

bool
retry_ed25519_verify(const uint8 *public, const char *message, size_t len, const uint8 *signature)
{
	EVP_PKEY   *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, RETRY_ED25519_KEY);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		good;

	good = key != NULL && context != NULL &&
		EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) == 1 &&
		EVP_DigestVerify(context, signature, RETRY_ED25519_SIGNATURE, (const uint8 *) message, len) == 1;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return good;
}

#else

bool
retry_ed25519_here(void)
{
	return false;
}

bool
retry_ed25519_public(const uint8 *private, uint8 *public)
{
	return false;
}

bool
retry_ed25519_sign(const uint8 *private, const char *message, size_t len, uint8 *signature)
{
	return false;
}

bool
retry_ed25519_verify(const uint8 *public, const char *message, size_t len, const uint8 *signature)
{
	return false;
}

#endif							/* RETRY_OPENSSL */
