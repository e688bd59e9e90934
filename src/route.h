/*
 * route.h
 *		Which of a scene's targets is called next, and which are left alone.
 *
 * A scene may name several base URLs that can do the same work.  Here is all
 * that decides among them: how one is chosen (the route), what counts as a
 * target's failure, for how long it is taken out, and how it comes back.
 *
 * A leaf: no allocation, no clock, no errors raised.  The time, random bits
 * and the hash of the task's key are arguments; the caller keeps the states.
 * Times are microseconds of one clock, whichever.  One process, no locks.
 */
#ifndef RETRY_ROUTE_H
#define RETRY_ROUTE_H

#include "datatype/timestamp.h"

#define RETRY_ROUTE_TARGETS_MAX		256 /* of a scene */
#define RETRY_ROUTE_WEIGHT_MAX	1000
#define RETRY_ROUTE_ERROR		256 /* room for a message that says why */

/* A target that fails is out for so long, twice that when it fails again … */
#define RETRY_ROUTE_OUT_FIRST_US	USECS_PER_SEC
/* … and never longer than this. */
#define RETRY_ROUTE_OUT_MAX_US		USECS_PER_MINUTE

/* So many answers of the weak kind in a row are a failure. */
#define RETRY_ROUTE_WEAK_LIMIT		3

typedef enum RetryRoute
{
	RETRY_ROUTE_HASH,			/* by key: the same key, the same target */
	RETRY_ROUTE_RANDOM,
	RETRY_ROUTE_ROUND_ROBIN,
	RETRY_ROUTE_LEAST_IN_FLIGHT,	/* the better of two random ones */
	RETRY_ROUTE_LRU,			/* the one not used for longest */
	RETRY_ROUTE_FIRST,			/* the first that is well: failover */
	RETRY_ROUTE_LAST,
	RETRY_ROUTE_ALL,			/* a task for each; one of them alone is
								 * chosen as by hash */
	RETRY_ROUTES
} RetryRoute;

/* What is known of a target; all zero: nothing yet, and it is well. */
typedef struct RetryRouteState
{
	int32		in_flight;
	int32		times_out;		/* failures since it was last well */
	int32		weak;			/* weak answers in a row */
	bool		out;
	bool		probing;		/* out, and one request is finding out */
	int64		out_since;		/* while out */
	int64		out_until;		/* while out: not probed before */
	int64		barred_until;	/* not chosen before, however well it is; 0:
								 * not barred */
	int64		turn;			/* for round robin */
	uint64		used;			/* number of its last use; 0: never */
} RetryRouteState;

typedef struct RetryRouteTarget
{
	const char *url;			/* without the weight */
	uint64		hash;			/* retry_route_hash of url */
	int32		weight;			/* 1..RETRY_ROUTE_WEIGHT_MAX */
	RetryRouteState *state;		/* the caller's; may be shared by copies */
} RetryRouteTarget;

/* How a request to a target ended, as far as the target is concerned. */
typedef enum RetryRouteEnd
{
	RETRY_ROUTE_END_UNKNOWN,	/* it was not sent, or the fault is ours */
	RETRY_ROUTE_END_WELL,		/* it answered; what, is the task's affair */
	RETRY_ROUTE_END_WEAK,		/* 5xx: maybe the task's fault, maybe its own */
	RETRY_ROUTE_END_FAILED		/* network, 502, 503, 504, 429 */
} RetryRouteEnd;

/* The route of that name; false when there is none. */
extern bool retry_route_by_name(const char *name, RetryRoute *route);

/*
 * Reads "URL" or "URL weight=N".  The URL is the first *url_len bytes of the
 * text.  False when it is neither, with the reason in err.
 */
extern bool retry_route_parse_target(const char *text, int *url_len, int32 *weight,
									 char *err, size_t err_size);

/* A hash of bytes that is the same in every process of a machine. */
extern uint64 retry_route_hash(const void *bytes, size_t len);

/*
 * The index of the target to call now, or -1 when none is well or may be
 * probed.  Then *retry_at is the moment to ask again: when the first of them
 * may be probed, or a second from now when all probes are under way.
 */
extern int	retry_route_choose(RetryRoute route, const RetryRouteTarget *targets, int count,
							   uint64 key_hash, uint64 random, int64 now, int64 *retry_at);

/*
 * A request goes to the target; "number" counts uses, from 1 on.  True when it
 * is the one that probes a target that is out: give that back at its end.
 */
extern bool retry_route_started(RetryRouteState *state, uint64 number);

/* The same request has ended, at "now". */
extern void retry_route_ended(RetryRouteState *state, bool probe, RetryRouteEnd end, int64 now);

/* What an HTTP status says of the target; 0 is no answer, a failure. */
extern RetryRouteEnd retry_route_judge(int http_status, bool body_cut);

#endif							/* RETRY_ROUTE_H */
