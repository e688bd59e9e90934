/*
 * dispatcher.c
 *		The loop that delivers: reap, record, read, send, wait.
 *
 *		wait ── latch (commit, configuration, shutdown), curl's sockets, a time
 *		  │
 *		  ├─ reap     transfers that have ended, judged by the policy
 *		  ├─ record   their outcomes, in one transaction
 *		  ├─ read     one snapshot: feed, sweep, refill, prepare
 *		  └─ send     after that transaction: start the transfers
 *
 * Everything it knows can be found again from the facts, so the answer to any
 * error is the same: give back what was taken, pause, go on.  What has ended
 * and is not recorded is the exception, and is kept until it is.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/resource.h>

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "alarm.h"
#include "crash.h"
#include "disabled.h"
#include "dispatcher.h"
#include "extension.h"
#include "govern.h"
#include "guc.h"
#include "hedge.h"
#include "held_count.h"
#include "http_settings.h"
#include "ordered.h"
#include "place.h"
#include "quarantine.h"
#include "scene_rate.h"
#include "scene_stats.h"
#include "schedule.h"
#include "sqlsend.h"
#include "turn.h"
#include "upkeep.h"
#include "worker.h"

#define CHECKPOINT_INTERVAL_US	(10 * USECS_PER_SEC)
#define DRAIN_LIMIT_US			(2 * USECS_PER_SEC) /* for what is in flight
													 * at the end */
#define OWN_RETRY_US			(50 * 1000) /* another dispatcher still holds
											 * a slot */
#define AGAIN_US				(100 * 1000)	/* a lock was in the way */
#define ERROR_PAUSE_MS			200
#define UNHURRIED_US			(20 * 1000) /* a record that nobody waits for */
#define KEPT_MEMORY				(8 * 1024 * 1024)	/* bytes */

static RetryDispatcher *d;
static uint64 config_generation;	/* that the configuration was read at */
static bool config_wanted = true;
static bool config_applied = true;	/* what was read of it, to the end */
static int	adoptions = -1;		/* -1: the configuration was never read */
static TimestampTz next_checkpoint;
static TimestampTz turn_again;	/* a moment at which there is more to do */
static int	max_transfers;		/* retry.max_in_flight, or what descriptors
								 * allow */
static bool blocked;			/* somebody has a table locked: not before
								 * turn_again */

static void
commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

/* False, having told the launcher, when there is nothing to deliver here. */
static bool
extension_present(void)
{
	RetryDatabaseState state;
	char	   *version;

	retry_worker_begin("looking for the extension");
	version = retry_extension_version();
	state = version == NULL ? RETRY_DB_ABSENT :
		strcmp(version, RETRY_VERSION) == 0 ? RETRY_DB_PRESENT : RETRY_DB_MISMATCH;
	commit();
	pgstat_report_activity(STATE_IDLE, NULL);
	retry_shmem_mark_database(state);
	return state == RETRY_DB_PRESENT;
}

/* The HTTP client, with the settings of now. */
static void
configure_http(void)
{
	RetryHttpOptions options;
	char		error[256];

	retry_http_settings(&options);
	options.max_in_flight = max_transfers;
	if (d->http == NULL)
	{
		d->http = retry_http_create(&options, error, sizeof(error));
		if (d->http == NULL)
			ereport(FATAL,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("retry: the HTTP client cannot be started: %s", error)));
	}
	else if (!retry_http_configure(d->http, &options, error, sizeof(error)))
		ereport(LOG, (errmsg("retry: the HTTP client keeps its former settings: %s", error)));
}

static RetryLaneLimits
lane_limits(void)
{
	RetryLaneLimits limits = {
		.max_lanes = retry_max_lanes,
		.max_queued = retry_max_queued,
		.max_in_flight = max_transfers,
		.lane_max_in_flight = retry_lane_max_in_flight
	};

	return limits;
}

/*
 * curl's sockets are unknown to fd.c, which may open files up to the soft limit
 * that the postmaster found.  So the limit is raised for this process by what
 * the sockets need, and where it cannot be, fewer transfers are made at once.
 */
static void
make_room_for_sockets(void)
{
	rlim_t		wanted = (rlim_t) retry_max_in_flight * 5 / 4 + 256;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return;
	if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= limit.rlim_cur + wanted)
	{
		limit.rlim_cur += wanted;
		if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
			return;
		limit.rlim_cur -= wanted;
	}
	max_transfers = Max(1, Min(retry_max_in_flight, (int) (limit.rlim_cur / 4)));
	if (max_transfers < retry_max_in_flight)
		ereport(LOG,
				(errmsg("retry: %d instead of %d requests at once, since the process may open only %llu files",
						max_transfers, retry_max_in_flight, (unsigned long long) limit.rlim_max),
				 errhint("Raise the server's hard limit of open files, or lower retry.max_in_flight.")));
}

/*
 * A turn takes memory and gives it back.  The C library would give it on to the
 * system, which clears it before the next turn gets it: so it keeps a little.
 */
static void
keep_memory(void)
{
#ifdef __GLIBC__
	mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY);
	mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY);
#endif
}

static void
create_dispatcher(RetryWorker *worker)
{
	RetryLaneLimits limits;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "retry dispatcher",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	keep_memory();
	max_transfers = retry_max_in_flight;
	make_room_for_sockets();
	limits = lane_limits();
	d = palloc0(sizeof(RetryDispatcher));
	d->context = context;
	d->turn_context = AllocSetContextCreate(context, "retry turn", ALLOCSET_DEFAULT_SIZES);
	d->db = retry_shmem_database();
	d->worker = worker;
	d->config = retry_config_create();
	d->lanes = retry_lanes_create(&limits, DT_NOEND);
	d->feed = retry_feed_create();
	d->sweep = retry_sweep_create();
	d->held = retry_held_create();
	d->disabled = retry_disabled_create();
	d->targets = retry_target_health_create(d->disabled);
	retry_held_count_clear(worker->database, worker->number);
	d->overrides = retry_overrides_create();
	retry_lane_stats_create(d);
	retry_target_health_show(d->targets, &worker->targets_shown);
	d->stats = retry_scene_stats_create(d);
	d->events = retry_events_create();
	d->notes = retry_notes_create();
	d->rates = retry_scene_rates_create(d);
	retry_send_create(d);
	d->sql = retry_sql_create();
	d->quarantine = retry_quarantine_create();
	MemoryContextSwitchTo(old);
	configure_http();
}

/* Which leaves have rows at all; the feed adds those that get some later. */
static void
look_at_leaves(RetryTurn *turn)
{
	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		if (retry_reader_leaf(turn->reader, leaf))
			d->leaf_live[leaf] = !retry_reader_empty(turn->reader, RETRY_TASK, leaf);
		else
			d->leaf_live[leaf] = true;
	}

	/* tasks are moved there that the feed met long ago */
	d->leaf_live[RETRY_LONG_LEAF] = true;
}

/*
 * Configuration, when somebody changed it; the old copy stays while it is
 * locked.  "generation" was read before the snapshot was taken, so that a
 * change it counts is one that the snapshot sees.
 */
static void
read_config(RetryTurn *turn, uint64 generation)
{
	if (!config_wanted && generation == config_generation)
		return;
	config_wanted = !retry_config_read(d->config, turn->snapshot);
	turn->config_read = !config_wanted;
	if (config_wanted)
		return;
	config_generation = generation;
	if (!retry_place_settle(d->config, d->db, d->worker->number == 0, turn->snapshot))
	{
		config_wanted = true;
		if (adoptions < 0)
			return;				/* it may be a copy: nothing goes before that
								 * is noted */
	}
	if (retry_overrides_read(d->overrides, d->config, turn->snapshot))
		retry_overrides_apply(d);
	else
	{
		config_wanted = true;
		if (adoptions < 0)
			return;				/* a lane may be paused */
	}
	d->order_look = ~UINT64CONST(0);
	retry_order_reopen_all(d);

	/* a scene may have other targets now, which nobody has found out yet */
	retry_govern_configured(turn);
	retry_target_health_forget(d->targets, turn->now_us);
	retry_lanes_unblock_all(d->lanes);
	retry_scene_rates_configured(d, turn->now_us);
	retry_scene_stats_configured(d, turn->now_us);
	if (adoptions >= 0 && retry_config_adoptions(d->config) != adoptions)
	{
		look_at_leaves(turn);
		retry_lanes_restart(d->lanes);
		retry_sweep_reset(d->sweep);
		retry_held_adopted(d->held);
	}
	adoptions = retry_config_adoptions(d->config);
}

/* Everything that reads: with one snapshot, in one transaction. */
static void
read_turn(RetryTurn *turn)
{
	uint64		generation = pg_atomic_read_u64(&d->db->config_generation);
	uint64		gone = pg_atomic_read_u64(&d->db->disabled_generation);
	uint64		truncations = pg_atomic_read_u64(&d->db->truncations);
	bool		disabled_changed;
	MemoryContext old;

	turn->now = GetCurrentTimestamp();
	turn->now_us = retry_monotonic_us();
	retry_worker_begin("delivering");
	turn->snapshot = GetActiveSnapshot();
	old = MemoryContextSwitchTo(d->turn_context);
	turn->reader = retry_reader_begin(turn->snapshot, true);
	turn->globals = retry_global_scans_begin(false);
	retry_reader_watch(turn->reader, &d->db->truncations, truncations);
	d->last_snapshot_at = turn->now;

	/*
	 * With this snapshot, from which the feed starts: what is put into an
	 * empty leaf later comes by the feed.
	 */
	if (d->gained != 0)
	{
		look_at_leaves(turn);
		retry_checkpoint_load(turn, d->gained);
		d->order_look |= d->gained;
		d->gained = 0;
	}
	config_applied = false;
	disabled_changed = retry_disabled_refresh(turn, generation, gone);
	read_config(turn, generation);
	if (adoptions >= 0 && retry_disabled_known(d->disabled) &&
		(turn->config_read || disabled_changed || turn->now >= retry_held_next(d->held)))
		retry_held_resume(turn);
	config_applied = true;
	if (d->worker->number == 0)
	{
		retry_upkeep_consider(turn->snapshot, generation, turn->now);
		if (adoptions >= 0)		/* schedules that came with a copy are held */
		{
			retry_schedules_consider(turn->snapshot, d->db, generation, turn->now);
			retry_alarms_consider(turn->snapshot, d->db, generation, turn->now);
		}
	}
	if (!retry_owner_settled(d))
		retry_own_slots(turn);
	if (d->gained != 0)
		turn->more = true;		/* what is theirs is read with a newer
								 * snapshot */
	else if (d->owned != 0 && retry_enabled && adoptions >= 0 && retry_disabled_known(d->disabled))
	{
		/* never without configuration: what may not be sent is passed over */
		retry_feed(turn);
		if ((d->order_look & d->owned) != 0 && retry_order_look(turn, d->order_look & d->owned))
			d->order_look = 0;
		retry_sweep(turn);
		retry_refill(turn);
		retry_send_prepare(turn);
	}
	/* the second is for a clock that was ahead */
	if (d->busy && (turn->now >= next_checkpoint ||
					next_checkpoint > turn->now + CHECKPOINT_INTERVAL_US))
	{
		retry_checkpoint_save(d);
		next_checkpoint = turn->now + CHECKPOINT_INTERVAL_US;
	}
	blocked = turn->locked || adoptions < 0 || !retry_disabled_known(d->disabled);
	if (blocked)
		turn->more = false;
	if (blocked || retry_reader_blocked(turn->reader))
		turn_again = turn->now + AGAIN_US;
	retry_reader_end(turn->reader);
	retry_global_scans_end(turn->globals);
	MemoryContextSwitchTo(old);
	commit();
	retry_own_release(d);
}

/* Numbers for the view retry.dispatchers. */
static void
publish_numbers(TimestampTz now)
{
	RetryWorker *w = d->worker;
	TimestampTz due = retry_lanes_next_due(d->lanes);

	w->in_flight = retry_send_flying(d);
	w->queued = retry_lanes_queued(d->lanes);
	w->lanes = retry_lanes_count(d->lanes);
	w->turns++;
	w->last_turn_at = now;
	w->oldest_due = due <= now ? due : 0;
}

/*
 * When what has ended is to be recorded.  Failed probes go with others'
 * outcomes, or after a while: while many lanes are shut, there is always a
 * probe, and a flush of WAL for each would keep all other lanes waiting.
 */
static TimestampTz
record_due(TimestampTz now)
{
	TimestampTz due = DT_NOEND;
	dlist_iter	iter;

	dlist_foreach(iter, &d->ended)
	{
		RetryEnded *ended = dlist_container(RetryEnded, node, iter.cur);

		/* the last is for a clock that was ahead */
		if (!ended->unhurried || ended->failures > 0 || ended->finished_at > now)
			return now;
		due = Min(due, ended->finished_at + UNHURRIED_US);
	}
	return due;
}

/* Records what has ended; false when some of it has to wait. */
static bool
record_ended(void)
{
	if (dlist_is_empty(&d->ended))
		return true;
	pgstat_report_activity(STATE_RUNNING, "recording");
	retry_record(&d->ended, d->config);
	retry_send_settle(d);
	return dlist_is_empty(&d->ended);
}

/* What people see of lanes and targets. */
static void
publish(void)
{
	retry_lane_stats_publish(d);
	retry_target_health_publish(d->targets, d->config, retry_monotonic_us());
	retry_scene_stats_publish(d, retry_monotonic_us());
}

/* One turn; true when there is work left that need not wait for anything. */
static bool
one_turn(void)
{
	RetryTurn	turn = {.d = d};
	TimestampTz now;
	TimestampTz due;
	bool		recorded;
	bool		notified;

	MemoryContextReset(d->turn_context);
	turn_again = DT_NOEND;

	retry_send_reap(d);
	now = GetCurrentTimestamp();
	recorded = record_due(now) > now || record_ended();
	notified = retry_notify(d, false);
	read_turn(&turn);
	publish();
	retry_send_start(d);
	retry_hedge_start(d);
	retry_sql_started(d);
	retry_send_reap(d);

	now = GetCurrentTimestamp();
	publish_numbers(now);
	retry_scene_stats_write(d, now, false);
	if (!retry_events_write(d, false) || !retry_disabled_write(d) || !notified)
		turn_again = Min(turn_again, now + AGAIN_US);
	if (!retry_owner_settled(d))
		turn_again = Min(turn_again, now + OWN_RETRY_US);
	if (!recorded || config_wanted)
		turn_again = Min(turn_again, now + AGAIN_US);
	else if ((due = record_due(now)) <= now)
		turn.more = true;
	else
		turn_again = Min(turn_again, due);
	return turn.more;
}

/* When a lane may send again that may not now, by the clock on the wall. */
static TimestampTz
next_unblock(TimestampTz now)
{
	int64		moment = Min(retry_lanes_next_unblock(d->lanes), retry_scene_rates_next(d));

	moment = Min(moment, retry_disabled_next(d->disabled));

	return moment == PG_INT64_MAX ? DT_NOEND : now + Max(moment - retry_monotonic_us(), 0);
}

/* How long to wait, in milliseconds, if nothing happens. */
static long
wait_time(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = now + (TimestampTz) retry_poll_interval_ms * 1000;
	long		http = retry_http_timeout_ms(d->http);
	long		ms;

	next = Min(next, turn_again);
	next = Min(next, retry_schedules_next());
	next = Min(next, retry_alarms_next());
	next = Min(next, retry_scene_stats_next(d));
	if (retry_enabled && d->owned != 0 && !blocked &&
		(d->quarantine == NULL || !retry_quarantine_closed(d)))
	{
		next = Min(next, retry_lanes_next_due(d->lanes));
		next = Min(next, retry_sweep_next(d));
		next = Min(next, next_unblock(now));
		next = Min(next, retry_held_next(d->held));
	}
	ms = next <= now ? 0 : (long) ((next - now + 999) / 1000);
	if (http >= 0)
		ms = Min(ms, http);
	if (retry_hedge_timeout_ms(d) >= 0)
		ms = Min(ms, retry_hedge_timeout_ms(d));
	if (retry_sql_timeout_ms(d) >= 0)
		ms = Min(ms, retry_sql_timeout_ms(d));
	if (d->quarantine != NULL && retry_quarantine_timeout_ms(d) >= 0)
		ms = Min(ms, retry_quarantine_timeout_ms(d));
	return ms;
}

/* What was asked for meanwhile. */
static void
handle_requests(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		RetryLaneLimits limits;

		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		limits = lane_limits();
		retry_lanes_set_limits(d->lanes, &limits);
		configure_http();
	}

	/*
	 * Before the next snapshot: it sees what commits that found us deaf have
	 * done.
	 */
	d->worker->deaf = !retry_enabled;
	pg_memory_barrier();
}

/* After an error: nothing is lost but this turn's work. */
static void
recover_from_error(void)
{
	HOLD_INTERRUPTS();
	error_context_stack = NULL;
	EmitErrorReport();
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	pgstat_report_wait_end();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	d->giving_up = 0;
	config_wanted |= !config_applied;
	retry_send_undo(d);
	RESUME_INTERRUPTS();
	pgstat_report_activity(STATE_IDLE, "pausing after an error");
	(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ERROR_PAUSE_MS, PG_WAIT_EXTENSION);
}

static void
note_own(RetryEventKind kind)
{
	RetryEvent	event = {.kind = kind};
	char		detail[64];

	snprintf(detail, sizeof(detail), "process %d", MyProcPid);
	event.detail = detail;
	retry_event_add(d, &event);
}

/*
 * That it has started, and after which crash: of those that the server has
 * survived the last, which the first dispatcher after it tells.
 */
static void
note_start(void)
{
	RetryEvent	event = {.kind = RETRY_EVENT_CRASHED};
	RetryCrashes crashes;
	char		detail[128];

	retry_crash_summary(d->worker->database, &crashes);
	if (crashes.n > 0 && crashes.last.at >= PgStartTime &&
		pg_atomic_exchange_u64(&d->db->crash_noted, (uint64) crashes.last.at) != (uint64) crashes.last.at)
	{
		snprintf(detail, sizeof(detail), "%s, by signal %d, with %d attempts under way",
				 crashes.last.executor ? "an executor" : "a dispatcher", crashes.last.signal, crashes.last.company);
		event.detail = detail;
		event.at = crashes.last.at;
		retry_event_add(d, &event);
	}
	note_own(RETRY_EVENT_STARTED);
}

/* Lets what is in flight end, within bounds, and writes down where it is. */
static void
drain(WaitEventSet *events)
{
	TimestampTz until = GetCurrentTimestamp() + DRAIN_LIMIT_US;

	/* when the extension was dropped, there is nothing to write it down in */
	if (!extension_present())
		return;
	pgstat_report_activity(STATE_RUNNING, "recording what is in flight before it stops");
	while (retry_send_flying(d) > 0 && GetCurrentTimestamp() < until)
	{
		WaitEvent	event;

		(void) WaitEventSetWait(events, 20, &event, 1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		retry_send_reap(d);
		record_ended();
	}
	retry_send_reap(d);
	record_ended();
	(void) retry_notify(d, true);
	note_own(RETRY_EVENT_STOPPED);
	(void) retry_events_write(d, true);
	(void) retry_disabled_write(d);
	retry_scene_stats_write(d, GetCurrentTimestamp(), true);
	retry_worker_begin("writing a checkpoint");
	retry_checkpoint_save(d);
	commit();
}

/* Fewer dispatchers are wanted, and this one has handed over all it had. */
static bool
is_retired(void)
{
	return d->worker->number >= d->worker->count && d->owned == 0 &&
		retry_send_flying(d) == 0 && dlist_is_empty(&d->ended);
}

/* Waits for so long; what was done last is shown while there is nothing to do. */
static bool
wait_for(WaitEventSet *events, long ms)
{
	WaitEvent	event[2];

	if (ms > RETRY_SHOW_EVERY_MS && retry_lanes_any_changed(d->lanes))
	{
		if (WaitEventSetWait(events, RETRY_SHOW_EVERY_MS, event, lengthof(event), PG_WAIT_EXTENSION) > 0)
			return true;
		publish();
		ms -= RETRY_SHOW_EVERY_MS;
	}
	return WaitEventSetWait(events, ms, event, lengthof(event), PG_WAIT_EXTENSION) > 0;
}

static void
main_loop(WaitEventSet *events)
{
	bool		more = true;

	while (!ShutdownRequestPending && !retry_shmem_worker_unwanted(d->worker) && !is_retired())
	{
		long		ms = more ? 0 : wait_time();

		if (ms > 0)
			pgstat_report_activity(STATE_IDLE, NULL);
		if (wait_for(events, ms))
			ResetLatch(MyLatch);
		handle_requests();
		if (ShutdownRequestPending || retry_shmem_worker_unwanted(d->worker))
			break;
		more = one_turn();
	}
}

void
retry_dispatcher_main(Datum main_arg)
{
	sigjmp_buf	boundary;
	WaitEventSet *events;
	RetryWorker *worker = retry_shmem_attach_worker(DatumGetInt32(main_arg));
	volatile bool draining = false;

	if (worker == NULL)
		proc_exit(0);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(worker->database, InvalidOid, 0);
	retry_pin_settings();
	if (!extension_present() || retry_shmem_database() == NULL)
		proc_exit(0);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);

	retry_crash_watch_dispatcher(worker);
	create_dispatcher(worker);
	note_start();
	events = retry_create_wait_event_set(3);
	AddWaitEventToSet(events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(events, WL_SOCKET_READABLE, retry_http_fd(d->http), NULL, NULL);

	if (sigsetjmp(boundary, 1) != 0)
	{
		recover_from_error();
		if (draining || !extension_present())
			proc_exit(0);
	}
	PG_exception_stack = &boundary;

	main_loop(events);
	draining = true;
	retry_worker_end_ours();
	drain(events);
	proc_exit(0);
}
