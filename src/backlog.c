/*
 * backlog.c
 *		An estimate of how much of a lane is due and lies on disk.
 *
 * All counts stop at their bounds rather than wrap: an entry may be met twice,
 * or be read that was counted by a dispatcher of long ago, and a wrong estimate
 * is better than an absurd one.
 */
#include "postgres.h"

#include "datatype/timestamp.h"

#include "backlog.h"

void
retry_backlog_add(RetryBacklog *backlog, uint32 n, TimestampTz due, TimestampTz now)
{
	uint32	   *count = &backlog->due;

	if (due > now)
	{
		int			kind = due - now > RETRY_BACKLOG_SOON_US;

		count = &backlog->later[kind];
		if (*count == 0)
			backlog->first[kind] = backlog->last[kind] = due;
		backlog->first[kind] = Min(backlog->first[kind], due);
		backlog->last[kind] = Max(backlog->last[kind], due);
	}
	*count = n > PG_UINT32_MAX - *count ? PG_UINT32_MAX : *count + n;
}

void
retry_backlog_read(RetryBacklog *backlog, TimestampTz due)
{
	for (int kind = 0; kind < RETRY_BACKLOG_KINDS; kind++)
	{
		if (backlog->later[kind] > 0 && due >= backlog->first[kind] && due <= backlog->last[kind])
		{
			backlog->later[kind]--;
			backlog->first[kind] = due;
			return;
		}
	}
	if (backlog->due > 0)
		backlog->due--;
}

/* How many of those that were to be due later are. */
static uint32
become_due(const RetryBacklog *backlog, int kind, TimestampTz now)
{
	TimestampTz first = backlog->first[kind];
	TimestampTz last = backlog->last[kind];

	if (backlog->later[kind] == 0 || now < first)
		return 0;
	if (now >= last)
		return backlog->later[kind];
	return (uint32) Max(1.0, backlog->later[kind] * ((double) (now - first) / (double) (last - first)));
}

void
retry_backlog_drained(RetryBacklog *backlog, TimestampTz now)
{
	backlog->due = 0;
	for (int kind = 0; kind < RETRY_BACKLOG_KINDS; kind++)
	{
		backlog->later[kind] -= become_due(backlog, kind, now);
		backlog->first[kind] = Max(backlog->first[kind], now);
	}
}

uint32
retry_backlog_due(const RetryBacklog *backlog, TimestampTz now)
{
	uint64		due = backlog->due;

	for (int kind = 0; kind < RETRY_BACKLOG_KINDS; kind++)
		due += become_due(backlog, kind, now);
	return (uint32) Min(due, PG_UINT32_MAX);
}
