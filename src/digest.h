/*
 * digest.h
 *		Keys that are made from what a task says.
 *
 * A caller that has no name of its own for a message can have one made from
 * where it goes and what is in it, so that the same message is not enqueued
 * twice.  The text is part of the contract: callers compute it beforehand with
 * retry.digest_key(), and other systems may, with any SHA-256.
 */
#ifndef RETRY_DIGEST_H
#define RETRY_DIGEST_H

/*
 * The lower-case hexadecimal SHA-256, palloc'd, of the bytes
 *		group/scene LF url LF body
 * where "url" is the task's own (NULL: it has none, nothing stands there), and
 * the body has "len" bytes, 0 when there is none.  ERROR (internal_error) when
 * it cannot be computed.
 */
extern text *retry_make_digest_key(const char *group, const char *scene, const text *url,
								   const char *body, Size len);

#endif							/* RETRY_DIGEST_H */
