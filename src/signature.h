/*
 * signature.h
 *		What keys can be used for here.
 *
 * Whether ed25519 is there depends on how the extension was built.  Who stores a
 * key and who verifies with one must hear of it in the same words.
 */
#ifndef RETRY_SIGNATURE_H
#define RETRY_SIGNATURE_H

#include "sign.h"

/*
 * ERROR (feature_not_supported) for keys of ed25519 where the extension was built
 * without OpenSSL.
 */
extern void retry_sign_require(RetrySignKind kind);

#endif							/* RETRY_SIGNATURE_H */
