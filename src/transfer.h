/*
 * transfer.h
 *		One attempt in a dispatcher, from a lane's entry to its record.
 *
 * What send.c keeps of each attempt that it has taken from a lane, for the few
 * files that take part in sending: one prepares, starts and ends attempts,
 * others do so in special ways.  Nobody else includes this.
 */
#ifndef RETRY_TRANSFER_H
#define RETRY_TRANSFER_H

#include "access/xlogdefs.h"

#include "request.h"
#include "turn.h"

typedef struct RetrySending
{
	RetryEnded	ended;			/* first: d->ended links these */
	dlist_node	node;			/* in taken or flying */
	RetryLane  *lane;			/* as long as it is in flight */
	int64		taken_us;		/* retry_monotonic_us() then */
	int32		rated;			/* scene whose rate counts it; 0: none */
	int			shared;			/* its entry in shared memory; -1 none */
	RetryPrepared prepared;
	int64		previous_delay_us;
	Oid			enqueued_by;
	RetryTargetUse target;
	RetryFlowEnd flow;			/* how it ended, to its lane; see govern.c */
	const RetryHttpResult *result;
	char	   *error;			/* of a function that failed, or NULL */
} RetrySending;

typedef struct RetrySender
{
	dlist_head	taken;			/* prepared, to be started after the turn */
	dlist_head	flying;
	int			nflying;
	dlist_head	unused;			/* RetrySending structs to use again */
	RetryInFlight *shared;
	int		   *free_shared;	/* stack of unused entries in shared memory */
	int			nfree_shared;
	XLogRecPtr	flush;			/* what is to be sent is durable from here */
	uint64		flush_xid;		/* the last transaction looked at for that */
} RetrySender;

#endif							/* RETRY_TRANSFER_H */
