/*
 * turn.h
 *		What the parts of a dispatcher share: its state, and one turn of it.
 *
 * A turn reads with one snapshot, taken after everything that was sent before
 * and has ended is recorded.  That is what makes the probe of a task's facts
 * final: nothing can have happened to the task that the snapshot does not
 * show, except what this dispatcher's own set of queued and sent ids knows.
 */
#ifndef RETRY_TURN_H
#define RETRY_TURN_H

#include "config.h"
#include "event.h"
#include "global_scan.h"
#include "http.h"
#include "lane.h"
#include "lane_stats.h"
#include "notify.h"
#include "override.h"
#include "record.h"
#include "shmem.h"
#include "store.h"
#include "target_health.h"
#include "task.h"

/* A snapshot as plain numbers: what it can see of transactions. */
typedef struct RetryHorizon
{
	uint64		xmin;
	uint64		xmax;			/* 0: nothing at all was seen yet */
	int			nxip;
	uint64	   *xip;			/* sorted; palloc'd, NULL when none */
} RetryHorizon;

typedef struct RetryFeed RetryFeed;
typedef struct RetrySweep RetrySweep;
typedef struct RetryHeld RetryHeld;
typedef struct RetrySqlSender RetrySqlSender;
typedef struct RetrySceneRates RetrySceneRates;

typedef struct RetryDispatcher
{
	MemoryContext context;		/* lives as long as the dispatcher */
	MemoryContext turn_context; /* reset at each turn */
	RetryDatabase *db;
	RetryWorker *worker;
	RetryConfig *config;
	RetryLanes *lanes;
	RetryHttp  *http;
	RetryFeed  *feed;
	RetrySweep *sweep;
	RetryHeld  *held;
	struct RetryDisabled *disabled;
	RetryTargetHealth *targets;
	RetrySceneRates *rates;		/* see scene_rate.h */
	RetryShown *lanes_shown;	/* see lane_stats.h */
	struct RetrySceneStats *stats;	/* see scene_stats.h */
	RetryOverrides *overrides;	/* of lanes */
	RetryEvents *events;		/* to be written when the turn ends */
	RetryNotes *notes;			/* for those who listen, see notify.h */
	uint64		owned;			/* slots whose locks it has */
	uint64		leaving;		/* of these, the slots it is giving up */
	uint64		giving_up;		/* of these, those that a checkpoint speaks
								 * for */
	uint64		gained;			/* slots whose checkpoint is to be read */
	uint64		order_look;		/* slots where lanes may have waited at dead
								 * tasks and are to be looked for */
	TimestampTz last_snapshot_at;	/* read before the last turn's snapshot */
	bool		leaf_live[RETRY_LEAVES];	/* may have something unresolved */
	dlist_head	ended;			/* attempts that have ended and wait to be
								 * recorded */
	struct RetrySender *sender; /* see transfer.h */
	RetrySqlSender *sql;		/* see sqlsend.h */
	struct RetryQuarantine *quarantine; /* NULL: nothing is under suspicion */
	bool		busy;			/* something changed since the last checkpoint */
} RetryDispatcher;

typedef struct RetryTurn
{
	RetryDispatcher *d;
	RetryReader *reader;
	RetryGlobalScans *globals;	/* what is decided */
	Snapshot	snapshot;
	TimestampTz now;			/* read before the snapshot was taken */
	int64		now_us;			/* retry_monotonic_us() then */
	bool		more;			/* there is work left for another turn at once */
	bool		config_read;	/* configuration was read in this turn */
	bool		locked;			/* configuration or a decision was needed, and
								 * somebody has it locked */
} RetryTurn;

/* What became of an entry that was offered to its lane. */
typedef enum RetryAdmitted
{
	RETRY_ADMIT_TAKEN,			/* queued now or before */
	RETRY_ADMIT_SKIPPED,		/* resolved, superseded, or held back */
	RETRY_ADMIT_ANEW,			/* its lane is read from elsewhere, and the
								 * entry then met again */
	RETRY_ADMIT_NO_ROOM
} RetryAdmitted;

/* A due entry as a row of one of the three streams shows it. */
typedef struct RetryCandidate
{
	RetryEntry	entry;			/* attempts: the number it presumes */
	bool		cancel;			/* a cancel signal: nothing to send */
	bool		amend;			/* a change: read when the task is sent */
	bool		step;			/* somebody stepped over a dead task */
	bool		inert;
	uint64		xid;
} RetryCandidate;

/* refill.c */
extern void retry_candidate_read(RetryIndex stream, TupleTableSlot *slot, int leaf, RetryCandidate *c);
extern RetryAdmitted retry_admit(RetryTurn *turn, RetryLane *lane, const RetryCandidate *c);
extern RetryScene *retry_turn_scene(RetryTurn *turn, int32 scene_id);
extern void retry_refill(RetryTurn *turn);

/* May the leaf have something unresolved that the turn's snapshot sees? */
extern bool retry_turn_leaf_live(const RetryTurn *turn, int leaf);

/* feed.c */
extern RetryFeed *retry_feed_create(void);
extern void retry_feed(RetryTurn *turn);

/* What the feed has seen completely. */
extern const RetryHorizon *retry_feed_seen(const RetryFeed *feed);

/* Goes back so far that everything after "seen" is read (again). */
extern void retry_feed_rewind(RetryFeed *feed, const RetryHorizon *seen);
extern void retry_horizon_of(Snapshot snapshot, RetryHorizon *horizon);

/* True when a snapshot of that horizon cannot see the transaction. */
extern bool retry_horizon_hides(const RetryHorizon *horizon, uint64 xid);

/* sweep.c */
extern RetrySweep *retry_sweep_create(void);
extern void retry_sweep(RetryTurn *turn);
extern void retry_sweep_reset(RetrySweep *sweep);

/* When the next sweep is to begin; DT_NOEND: none. */
extern TimestampTz retry_sweep_next(const RetryDispatcher *d);

/* held.c: entries that were passed over: their scene is paused, their URL disabled */
extern RetryHeld *retry_held_create(void);

/*
 * Is an entry due then to be passed over, because its scene is paused or being
 * resumed little by little?  That is noted, and it is read again in time.
 */
extern bool retry_held_back(RetryTurn *turn, const RetryScene *scene, int64 lane_hash, TimestampTz due);

/*
 * Is an entry due then to be passed over, because its row came from elsewhere
 * and was not adopted?  That is noted: until retry_held_adopted(), when
 * everything is read again anyway, or a restart, when it may have been adopted
 * meanwhile.
 */
extern bool retry_held_foreign(RetryTurn *turn, bool inert, uint64 xid, TimestampTz due);
extern void retry_held_adopted(RetryHeld *held);

/* The earliest entry of the scene that was passed over; DT_NOEND: none. */
extern TimestampTz retry_held_due(const RetryHeld *held, int32 scene_id);

/*
 * The earliest entry that was passed over and may be of this lane, of whichever
 * scene of its group; DT_NOEND: none.
 */
extern TimestampTz retry_held_due_in_lane(const RetryDispatcher *d, int32 group_id, int64 lane_hash);

/*
 * The same for an entry that would call this URL, or (NULL) one of the scene's
 * targets, all of which are disabled.  It is read again when that may have
 * changed, and soon after "expires_at".
 */
extern bool retry_held_url(RetryTurn *turn, const RetryScene *scene, const char *url,
						   int64 lane_hash, TimestampTz due, TimestampTz expires_at);

/* All lanes of the scene may be concerned: after a restart. */
extern void retry_held_note_all(RetryHeld *held, int32 scene_id, TimestampTz due);

/*
 * The same for disabled URLs: read again unless the scene's are still those
 * that "digest" stands for, and it is called where it was, and when one of them
 * is enabled.
 */
extern void retry_held_note_urls(RetryHeld *held, int32 scene_id, TimestampTz due,
								 TimestampTz expires_at, int64 digest);

/* To be called when the configuration was read, and from this moment on. */
extern void retry_held_resume(RetryTurn *turn);
extern TimestampTz retry_held_next(const RetryHeld *held);

/*
 * What a checkpoint says of them: paused scenes (0: what came from elsewhere),
 * and scenes with disabled URLs.  Everything is palloc'd.
 */
typedef struct RetryHeldList
{
	int			n;
	Datum	   *scenes;			/* int4 */
	Datum	   *dues;			/* timestamptz: the earliest */
	int			nurls;
	Datum	   *url_scenes;
	Datum	   *url_dues;
	Datum	   *url_expiries;	/* timestamptz: the earliest */
	Datum	   *url_digests;	/* int8 */
} RetryHeldList;
extern void retry_held_list(const RetryDispatcher *d, RetryHeldList *list);

/* checkpoint.c */
extern void retry_checkpoint_load(RetryTurn *turn, uint64 slots);

/* In a transaction of its own; raises errors. */
extern void retry_checkpoint_save(RetryDispatcher *d);

/* owner.c */
extern void retry_own_slots(RetryTurn *turn);
extern void retry_own_release(RetryDispatcher *d);
extern bool retry_owner_settled(const RetryDispatcher *d);

/* send.c, send_prepare.c, send_end.c */
extern void retry_send_create(RetryDispatcher *d);

/* In a turn: takes entries from the lanes and makes their requests ready. */
extern void retry_send_prepare(RetryTurn *turn);

/* After the turn's transaction: makes sure of their durability, and sends them. */
extern void retry_send_start(RetryDispatcher *d);

/* After an error: what was taken and not started goes back to its lane. */
extern void retry_send_undo(RetryDispatcher *d);

/* Runs the transfers; those that have ended are judged and put into d->ended. */
extern void retry_send_reap(RetryDispatcher *d);

/* After retry_record: lets go of what is recorded. */
extern void retry_send_settle(RetryDispatcher *d);

/* Transfers that are under way. */
extern int	retry_send_flying(const RetryDispatcher *d);

/* Entries sent, held apart, or ended and not yet recorded; each of a lane and with its place. */
extern void retry_send_each(RetryDispatcher *d,
							void (*visit) (int64 lane_hash, const RetryPos *pos, void *arg), void *arg);

#endif							/* RETRY_TURN_H */
