/*
 * scene_tls.h
 *		What a scene asks of TLS.
 *
 * A dispatcher and a session read scenes in two ways; what they ask of the HTTP
 * client is the same, and made here.
 */
#ifndef RETRY_SCENE_TLS_H
#define RETRY_SCENE_TLS_H

#include "config.h"

/*
 * Reads the columns tls_* of a row of retry.scene into the scene, in the current
 * memory context.  The client certificate is only named then: it comes with the
 * secrets.  Looks into pg_authid for whom it was that switched verification off:
 * it stays on unless that role is a superuser still.  False, with what is wrong,
 * for a row that no constraint would have let in.
 */
extern bool retry_scene_read_tls(const Datum *values, const bool *isnull, RetryScene *scene,
								 const char **wrong);

/* Must its requests go to no origin but its own, for what it asks of TLS? */
extern bool retry_scene_tls_binds(const RetryScene *scene);

#endif							/* RETRY_SCENE_TLS_H */
