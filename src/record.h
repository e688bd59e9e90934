/*
 * record.h
 *		Recording what became of attempts: the only writer of retry.attempt.
 *
 * All outcomes of a turn go in one transaction; if that fails, one by one; if
 * one still fails, as a row that says only that; and what cannot be recorded
 * at all is kept and tried again, never sent again.
 */
#ifndef RETRY_RECORD_H
#define RETRY_RECORD_H

#include "lib/ilist.h"
#include "decision.h"
#include "policy.h"
#include "task.h"

struct RetryConfig;

/* Was an attempt sent a second time? */
typedef enum RetryHedged
{
	RETRY_HEDGED_NEVER,			/* its scene does not ask for that */
	RETRY_HEDGED_NO,
	RETRY_HEDGED_YES
} RetryHedged;

/* One attempt that has ended.  Pointers belong to the caller until it is recorded. */
typedef struct RetryEnded
{
	dlist_node	node;
	RetryEntry	entry;			/* attempts + 1 is this attempt's number */
	int64		lane_hash;
	int32		scene_id;
	TimestampTz started_at;
	TimestampTz finished_at;
	int64		duration_us;
	RetryVerdict verdict;
	int			http_status;	/* 0: none */
	int32		dns_us;			/* 0: not measured, stored as null */
	int32		connect_us;
	int32		tls_us;
	int32		first_byte_us;
	int32		pendings;		/* attempts so far that do not count in
								 * max_attempts */
	RetryHedged hedged;
	const char *target;			/* URL of a routed scene's target; NULL none */
	const char *remote_ip;		/* "" none */
	const char *error;			/* UTF-8 or any bytes; "" none */
	const char *response;
	Size		response_len;
	char	   *on_success;		/* targets to be told: NULL none; see
								 * callback.h */
	char	   *on_dead;
	RetryDecision decision;		/* what a check was answered */
	struct RetryGone *gone;		/* a URL to be disabled, see disabled.h; NULL
								 * none */
	bool		gone_stored;	/* and it is, if this is recorded */
	void	   *owner;			/* the dispatcher's: what to release
								 * afterwards */
	bool		ordered;		/* its lane was ordered when it was sent */
	bool		row_unread;		/* its task's row must not be read: its dead
								 * letter is empty, and nobody is told */
	bool		unhurried;		/* nobody waits for its record: a failed probe
								 * of a lane that stays shut */
	bool		recorded;		/* set by retry_record */
	int			failures;		/* of recording it */
} RetryEnded;

/*
 * Records the attempts of the list in a transaction of its own (or several),
 * committed with synchronous_commit = local, and sets "recorded" on each that
 * is now in the store, whatever the way; the others are to be offered again.
 * Dead tasks get their dead letter in the same transaction, and whoever is to
 * be told of an outcome gets a task (callback.h), for which "config" says what
 * its target means.  Must be called outside a transaction; raises no error.
 * Returns how many were recorded.
 */
extern int	retry_record(dlist_head *ended, struct RetryConfig *config);

/*
 * The text of an error for a column, at most 1000 bytes, with what is no valid
 * UTF-8 replaced by question marks; in a database of another encoding, whatever
 * is not ASCII.  In the current memory context.
 */
extern Datum retry_error_datum(const char *error);

/*
 * Records one attempt, whole, in the current transaction, and stores who is to
 * be told of it: both count if that commits.  Waits for locks; raises an ERROR
 * when it cannot be stored, a unique violation when its number is there already.
 * Sets nothing in "ended".
 */
extern void retry_record_here(RetryEnded *ended, struct RetryConfig *config);

#endif							/* RETRY_RECORD_H */
