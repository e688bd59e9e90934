/*
 * owner.c
 *		Which lanes are this dispatcher's: slots, and handing them over.
 *
 * Lanes fall into 64 slots, and slot s belongs to dispatcher s modulo n.  A
 * dispatcher holds a lock for each of its slots, of a kind that no SQL
 * statement can take.  When n changes, a slot is given up only after what its
 * lanes have in flight is recorded and a checkpoint says where they are; the
 * next owner gets the lock no sooner, and starts from that checkpoint.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "turn.h"

/* SQL's advisory locks use 1 and 2 here. */
#define SLOT_LOCK_CLASS		0x52

#define DROP_AT_ONCE		1000	/* lanes forgotten in one go */

static void
slot_tag(LOCKTAG *tag, int slot)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0x72657472, slot, SLOT_LOCK_CLASS);
}

static uint64
wanted_slots(const RetryWorker *worker)
{
	uint64		slots = 0;
	int			count = Max(worker->count, 1);

	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		if (i % count == worker->number)
			slots |= UINT64CONST(1) << i;
	}
	return slots;
}

typedef struct Leaving
{
	RetryDispatcher *d;
	uint64		occupied;		/* slots that still have something in flight */
	RetryLane  *drop[DROP_AT_ONCE];
	int			ndrop;
} Leaving;

static void
stop_lane(RetryLane *lane, void *arg)
{
	RetryDispatcher *d = ((Leaving *) arg)->d;

	retry_lane_stop(d->lanes, lane, (d->leaving & (UINT64CONST(1) << RETRY_SLOT(lane->hash))) != 0);
}

static void
note_occupied(int64 lane_hash, const RetryPos *pos, void *arg)
{
	((Leaving *) arg)->occupied |= UINT64CONST(1) << RETRY_SLOT(lane_hash);
}

static void
collect_dropped(RetryLane *lane, void *arg)
{
	Leaving    *leaving = arg;

	if (leaving->ndrop < DROP_AT_ONCE &&
		(leaving->d->owned & (UINT64CONST(1) << RETRY_SLOT(lane->hash))) == 0)
		leaving->drop[leaving->ndrop++] = lane;
}

/* Gives up the slots that are quiet now. */
static void
give_up(RetryDispatcher *d)
{
	Leaving    *leaving = palloc0(sizeof(Leaving));
	uint64		quiet;

	leaving->d = d;
	retry_send_each(d, note_occupied, leaving);
	quiet = d->leaving & ~leaving->occupied;
	if (quiet == 0)
		return;

	/* still owned while it is written: the checkpoint speaks for them */
	retry_checkpoint_save(d);
	d->giving_up |= quiet;
}

/* After the commit that made the checkpoint durable: let go of the locks. */
void
retry_own_release(RetryDispatcher *d)
{
	Leaving    *leaving;

	if (d->giving_up == 0)
		return;
	d->owned &= ~d->giving_up;
	d->leaving &= ~d->giving_up;
	leaving = palloc0(sizeof(Leaving));
	leaving->d = d;
	do
	{
		leaving->ndrop = 0;
		retry_lanes_each(d->lanes, collect_dropped, leaving);
		for (int i = 0; i < leaving->ndrop; i++)
			retry_lanes_drop(d->lanes, leaving->drop[i]);
	} while (leaving->ndrop > 0);
	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		LOCKTAG		tag;

		if ((d->giving_up & (UINT64CONST(1) << i)) == 0)
			continue;
		slot_tag(&tag, i);
		LockRelease(&tag, ExclusiveLock, true);
	}
	d->giving_up = 0;
	pfree(leaving);
}

bool
retry_owner_settled(const RetryDispatcher *d)
{
	return d->owned == wanted_slots(d->worker) && d->leaving == 0;
}

/* Takes the slots that are ours and free; starts to leave those that are not. */
void
retry_own_slots(RetryTurn *turn)
{
	RetryDispatcher *d = turn->d;
	uint64		wanted = wanted_slots(d->worker);
	uint64		gained = 0;
	uint64		leave = d->owned & ~wanted;

	if (leave != d->leaving)
	{
		Leaving		leaving = {.d = d};

		d->leaving = leave;
		retry_lanes_each(d->lanes, stop_lane, &leaving);
	}
	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		LOCKTAG		tag;

		if ((wanted & ~d->owned & (UINT64CONST(1) << i)) == 0)
			continue;
		slot_tag(&tag, i);
		if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
			continue;
		gained |= UINT64CONST(1) << i;
	}
	if (gained != 0)
	{
		d->owned |= gained;
		/* a snapshot that sees the checkpoint of the one who gave it up */
		d->gained |= gained;
	}
	if (d->leaving != 0)
		give_up(d);
}
