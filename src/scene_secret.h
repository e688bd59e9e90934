/*
 * scene_secret.h
 *		What a scene needs of its group's secrets, and whom it may tell them.
 *
 * A dispatcher and a session that calls for itself read scenes in two ways; what
 * is missing, and where a token must not go, is the same for both.
 */
#ifndef RETRY_SCENE_SECRET_H
#define RETRY_SCENE_SECRET_H

#include "config.h"
#include "secret.h"

/*
 * Gives a scene that was just read, in the current memory context, the values
 * that it signs with, fills into its headers and shows as its certificate.  When one that it needs is not
 * set (or does not sign, and should), the scene is as if paused, and says why in
 * missing_secret.  The values stay those of "secrets", which must live as long.
 */
extern void retry_scene_take_secrets(RetryScene *scene, const RetrySecrets *secrets);

/* Does it need any? */
extern bool retry_scene_needs_secrets(const RetryScene *scene);

/*
 * May a request of the scene go to this URL, which its task brought?  Secrets in
 * headers go to origins of the scene's own URL or targets only; so does whatever
 * carries a client certificate, or believes any server.
 */
extern bool retry_scene_may_call(const RetryScene *scene, const char *url);

/*
 * Writes stars over the values, of 8 bytes and more, of secrets of the scene's
 * group in what a receiver answered: some repeat the headers that they got.
 * Does nothing for a scene whose headers name none, or NULL.
 */
extern void retry_scene_mask(const RetryScene *scene, char *answer, size_t len);

#endif							/* RETRY_SCENE_SECRET_H */
