/*
 * flow.c
 *		Whether a lane may send, and what it learns from what became of it.
 *
 * The one place where everything that may hold a lane back is put together, in
 * the order in which it is named to people.  The scheduler knows only this:
 * it asks for each side of a lane, tells of each start, and of each end.
 */
#include "postgres.h"

#include "flow.h"

RetryGate
retry_flow_gate(RetryFlow *flow, bool retry, int64 now_us, int64 *until_us)
{
	*until_us = 0;
	return RETRY_GATE_OPEN;
}

void
retry_flow_started(RetryFlow *flow, bool retry, int64 now_us)
{
}

void
retry_flow_ended(RetryFlow *flow, const RetryFlowEnd *end, int64 now_us)
{
}

void
retry_flow_clear(RetryFlow *flow)
{
}
