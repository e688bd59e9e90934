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

#include "scene_rate.h"
#include "turn.h"

/* SQL's advisory locks use 1 and 2 here. */
#define SLOT_LOCK_CLASS		0x52

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

static void
note_occupied(int64 lane_hash, const RetryPos *pos, void *arg)
{
	*(uint64 *) arg |= UINT64CONST(1) << RETRY_SLOT(lane_hash);
}

/* Gives up the slots that are quiet now. */
static void
give_up(RetryDispatcher *d)
{
	uint64		occupied = 0;	/* slots that still have something in flight */
	uint64		quiet;

	retry_send_each(d, note_occupied, &occupied);
	quiet = d->leaving & ~occupied;
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
	if (d->giving_up == 0)
		return;
	d->owned &= ~d->giving_up;
	d->leaving &= ~d->giving_up;
	retry_scene_rates_forget(d, d->giving_up);
	retry_lanes_drop_slots(d->lanes, d->giving_up);
	retry_lanes_stop(d->lanes, d->leaving);
	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		LOCKTAG		tag;

		if ((d->giving_up & (UINT64CONST(1) << i)) == 0)
			continue;
		slot_tag(&tag, i);
		LockRelease(&tag, ExclusiveLock, true);
	}
	d->giving_up = 0;
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
		d->leaving = leave;
		retry_lanes_stop(d->lanes, leave);
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
