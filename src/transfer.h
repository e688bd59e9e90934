/*
 * transfer.h
 *		One attempt in a dispatcher, from a lane's entry to its record.
 *
 * What a dispatcher keeps of each attempt that it has taken from a lane, for the few
 * files that take part in sending: one prepares, starts and ends attempts,
 * others do so in special ways.  Nobody else includes this.
 */
#ifndef RETRY_TRANSFER_H
#define RETRY_TRANSFER_H

#include "access/xlogdefs.h"
#include "lib/pairingheap.h"

#include "quarantine.h"
#include "request.h"
#include "turn.h"

/* One of the two transfers that an attempt may have: the tag of an HTTP request. */
typedef struct RetryFlight
{
	struct RetrySending *sending;
	bool		second;
	bool		up;				/* taken by the client, and not ended */
	int64		started_us;		/* retry_monotonic_us() then */
} RetryFlight;

/* See hedge.c. */
typedef struct RetryHedge
{
	pairingheap_node node;		/* in the sender's hedges, while armed */
	bool		armed;
	bool		over;			/* its attempt has ended */
	int64		at_us;			/* the moment, if armed */
	int64		late_us;		/* the transfer that counts began so late */
	RetryTargetUse target;		/* of the second; all zero: the same target */
	const RetryHttpResult *kept;	/* has ended, and waits for the other */
	bool		kept_second;
} RetryHedge;

typedef struct RetrySending
{
	RetryEnded	ended;			/* first: d->ended links these */
	dlist_node	node;			/* in taken or flying */
	RetryLane  *lane;			/* it stays until this is recorded */
	int64		taken_us;		/* retry_monotonic_us() then */
	int32		rated;			/* scene whose rate counts it; 0: none */
	RetrySuspicion suspicion;	/* see quarantine.h */
	int			shared;			/* its entry in shared memory; -1 none */
	RetryPrepared prepared;
	int64		previous_delay_us;
	Oid			enqueued_by;
	RetryTargetUse target;
	RetryFlowEnd flow;			/* how it ended, to its lane; see govern.c */
	const RetryHttpResult *result;
	char	   *error;			/* of a function that failed, or NULL */
	RetryFlight flights[2];
	RetryHedge	hedge;
} RetrySending;

typedef struct RetrySender
{
	dlist_head	taken;			/* prepared, to be started after the turn */
	dlist_head	flying;
	int			nflying;
	dlist_head	unused;			/* RetrySending structs to use again */
	pairingheap *hedges;		/* of those flying that may be sent again */
	RetryInFlight *shared;
	int		   *free_shared;	/* stack of unused entries in shared memory */
	int			nfree_shared;
	XLogRecPtr	flush;			/* what is to be sent is durable from here */
	uint64		flush_xid;		/* the last transaction looked at for that */
} RetrySender;

/* One that is in no list; it lives until it is freed, which takes what it holds along. */
extern RetrySending *retry_sending_new(RetryDispatcher *d);
extern void retry_sending_free(RetryDispatcher *d, RetrySending *t);

/* Gives an entry back: it is read again from its place.  Frees it. */
extern void retry_sending_put_back(RetryDispatcher *d, RetrySending *t);

/* What became of it; ended.error is set before. */
extern void retry_sending_set_verdict(RetrySending *t, RetryVerdict verdict);

/* An attempt that ends without having been sent; the verdict says why. */
extern void retry_sending_end_unsent(RetryDispatcher *d, RetrySending *t, TimestampTz now,
									 RetryVerdict verdict);

#endif							/* RETRY_TRANSFER_H */
