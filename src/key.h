/*
 * key.h
 *		Idempotency keys: one live task for each key of a scene.
 *
 * The only mutable table that every enqueue with a key touches, and that only
 * enqueue touches: dispatchers never read it, so whatever a session locks here
 * delays only others that use the same key.
 */
#ifndef RETRY_KEY_H
#define RETRY_KEY_H

#include "utils/uuid.h"
#include "access.h"
#include "scene.h"

/*
 * What to do about a key whose task is alive, or finished less than the scene's
 * key_window ago; such a one cannot be replaced.
 */
typedef enum RetryKeyConflict
{
	RETRY_KEY_RETURN,			/* give its id */
	RETRY_KEY_ERROR,			/* unique_violation */
	RETRY_KEY_REPLACE			/* cancel it, if nothing of it was sent */
} RetryKeyConflict;

/* Keys being claimed: a connection to SPI, as the tables' owner. */
typedef struct RetryKeyring
{
	const RetrySceneRow *scene;
	RetryKeyConflict on_conflict;
	Oid			role;			/* of the key: 0 in groups that are not shared */
	RetryRoleSwitch caller;
	bool		has_parent;		/* the other task that the last claim has
								 * found has a parent */
	pg_uuid_t	parent;			/* and this is it */
} RetryKeyring;

/*
 * Nothing but retry_key_claim() may be called between begin and end.  Nothing
 * needs to be ended after an ERROR.
 */
extern void retry_keyring_begin(RetryKeyring *keyring, const RetrySceneRow *scene,
								RetryKeyConflict on_conflict);
extern void retry_keyring_end(RetryKeyring *keyring);

/*
 * True: the key now belongs to the task *id, which the caller stores in "leaf"
 * in this same transaction, before the next claim of the same key.  False: it
 * belongs to another task (see above), whose id is put into *id.  Waits for other sessions
 * that are claiming the same key.  ERROR: unique_violation, or
 * object_not_in_prerequisite_state when the task cannot be replaced, or
 * a serialization failure from REPEATABLE READ on.
 */
extern bool retry_key_claim(RetryKeyring *keyring, text *key, int leaf, pg_uuid_t *id);

#endif							/* RETRY_KEY_H */
