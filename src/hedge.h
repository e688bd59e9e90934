/*
 * hedge.h
 *		The second transfer of an attempt that lasts long.
 *
 * One attempt, one verdict, one row: what happens in between is here.  An
 * attempt whose scene hedges gets a moment when it starts; when that comes and
 * it is still under way, the same request is sent again, and the first answer
 * that settles it is the attempt's.
 */
#ifndef RETRY_HEDGE_H
#define RETRY_HEDGE_H

#include "transfer.h"

/* An attempt has been started: it may be sent again when its moment comes. */
extern void retry_hedge_arm(RetryDispatcher *d, RetrySending *sending);

/*
 * Sends those a second time whose moment has come, where their lane, its budget
 * and the client allow it now; the others never.
 */
extern void retry_hedge_start(RetryDispatcher *d);

/* Milliseconds until retry_hedge_start may have something to do; -1: nothing. */
extern long retry_hedge_timeout_ms(const RetryDispatcher *d);

/*
 * A transfer has ended; "flight" is its tag.  When that ends its attempt, *result
 * is the one that counts, the other one is over, and the target in "sending" is
 * the one that answered.  Otherwise false: the attempt goes on, or had ended
 * before, and *result is not the caller's any more.
 */
extern bool retry_hedge_landed(RetryDispatcher *d, RetryFlight *flight,
							   const RetryHttpResult **result);

#endif							/* RETRY_HEDGE_H */
