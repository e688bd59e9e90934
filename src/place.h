/*
 * place.h
 *		Is this server the one that delivered from this database before?
 *
 * A server that took over goes on; one that was copied beside the original
 * must not send what the original sends.  Dispatchers ask once, as they start.
 */
#ifndef RETRY_PLACE_H
#define RETRY_PLACE_H

#include "utils/snapshot.h"
#include "config.h"
#include "shmem.h"

/*
 * Compares the database and the server with those that retry.installation and
 * retry.place tell of, and notes there what is new: a copy, whose tasks are
 * held from then on, or a server that has taken over.  In the current
 * transaction, with its snapshot, after the configuration was read with it.
 * One dispatcher "notes", the others wait until it has noted a copy.
 *
 * True when delivery may go on as the configuration says.  False when it may
 * not yet: a table is locked, or it was just noted that this is a copy; the
 * configuration is to be read again.  Once true, it costs nothing more.
 */
extern bool retry_place_settle(const RetryConfig *config, const RetryDatabase *db, bool notes, Snapshot snapshot);

#endif							/* RETRY_PLACE_H */
