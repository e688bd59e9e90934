/*
 * adaptive.c
 *		How many requests at once an endpoint can take, found from how it answers.
 *
 * Answers are judged by the window: as many as say something, all to requests
 * that were sent under one limit.  Latencies are averaged as logarithms, so
 * that a few that hang do not outweigh the many, and the scatter within the
 * window says how much of a rise may be chance.
 *
 * Giving way is an experiment.  It goes below what the endpoint seems to take,
 * so that its queue empties and the latency without one is seen again; and when
 * it helps nothing several times in a row, then the load was not the reason,
 * and what is seen now is taken for the usual.
 */
#include "postgres.h"

#include <math.h>

#include "adaptive.h"

#define SECOND			INT64CONST(1000000)

#define FIRST_LIMIT		4
#define WINDOW_MIN		20		/* answers, or two for each place */
#define WINDOW_MAX		256
#define EPOCH_US		(20 * SECOND)
#define EPOCH_WINDOWS	16		/* and no fewer */

#define RISE			0.45	/* that is too much, in octaves: 1.37 times */
#define CHANCE			3.0		/* standard errors on top of it */
#define CHANCE_MAX		2.0
#define FAILURES		0.1		/* share above the usual that is too much */
#define THROTTLINGS		0.05	/* share that is too much */
#define GIVE_WAY		0.9		/* of what it seems to take */
#define FAILED_FACTOR	0.75	/* when only failures speak */
#define LEAST_FACTOR	0.5
#define HELPED			0.25	/* of what giving way should have brought */
#define IN_VAIN			3

/* Why it sent less after the last window. */
enum
{
	CAUSE_NONE,
	CAUSE_SLOW,
	CAUSE_FAILURES,
	CAUSE_THROTTLED,
	CAUSE_CURIOUS				/* no reason: to see the latency without a
								 * queue */
};

/* What a window says. */
typedef struct Window
{
	double		level;			/* latency's logarithm; 0 unknown */
	double		rise;			/* above what it is without a queue */
	double		chance;			/* rise that may be chance */
	double		failures;		/* shares */
	double		throttlings;
	double		bearable;		/* share of failures */
} Window;

static void
begin_window(RetryAdaptive *a, int64 now_us)
{
	a->window_start = now_us;
	a->answers = a->timed = a->failed = a->throttled = a->used = a->peak = 0;
	a->sum = a->squares = 0;
}

/* The latency without a queue; 0: unknown. */
static double
resting_level(const RetryAdaptive *a)
{
	if (a->least[0] == 0 || a->least[1] == 0)
		return Max(a->least[0], a->least[1]);
	return Min(a->least[0], a->least[1]);
}

static void
begin_epoch(RetryAdaptive *a, int64 now_us)
{
	a->least[1] = a->least[0];
	a->least[0] = 0;
	a->epoch_start = now_us;
	a->epoch_windows = 0;
	a->gave_way = false;
}

static void
read_window(const RetryAdaptive *a, Window *w)
{
	double		rest = resting_level(a);
	double		usual = a->usual_failures;

	memset(w, 0, sizeof(Window));
	w->failures = (double) a->failed / a->answers;
	w->throttlings = (double) a->throttled / a->answers;
	w->bearable = usual + FAILURES + 2 * sqrt(usual * (1 - usual) / a->answers);
	if (a->timed == 0)
		return;
	w->level = a->sum / a->timed;
	if (rest != 0)
		w->rise = w->level - rest;
	if (a->timed > 1)
		w->chance = CHANCE * sqrt(Max(a->squares / a->timed - w->level * w->level, 0) / (a->timed - 1));
	w->chance = Min(w->chance, CHANCE_MAX);
}

/* Learns what the latency is when nothing waits, and how much fails anyway. */
static void
note_usual(RetryAdaptive *a, const Window *w, int64 now_us)
{
	if (w->failures < a->usual_failures)
		a->usual_failures += (w->failures - a->usual_failures) / 8;
	if (w->level == 0)
		return;
	if (a->epoch_windows++ == 0 && a->least[1] == 0)
		a->epoch_start = now_us;
	if (a->least[0] == 0)
		a->least[0] = w->level;
	else if (w->level < a->least[0])

		/* half-way: the least of many would be the one most wrong */
		a->least[0] = (w->level + a->least[0]) / 2;
}

/*
 * The last window gave way; this one shows what it was good for.  What does not
 * get better by sending less has another reason than what we send.
 */
static void
judge_experiment(RetryAdaptive *a, const Window *w)
{
	double		gain = HELPED * a->before;
	double		now = w->failures;

	if (a->cause == CAUSE_CURIOUS)
	{
		a->limit = a->from;
		a->cause = CAUSE_NONE;
		return;
	}

	if (a->cause == CAUSE_SLOW)
	{
		gain = HELPED * log2(Max(a->from / a->limit, 1));
		now = w->level == 0 ? a->before : w->level;
	}
	if (a->cause == CAUSE_THROTTLED || a->before - now > gain)
		a->in_vain = 0;
	else if (++a->in_vain == IN_VAIN)
	{
		if (a->cause == CAUSE_SLOW)
		{
			a->least[0] = w->level;
			a->least[1] = 0;
		}
		else
			a->usual_failures = w->failures;
		a->limit = Max(a->limit, a->from_first);
		a->in_vain = 0;
	}
	a->cause = CAUSE_NONE;
}

/* Sends less: by as much as latency tells, or by a part when only failures speak. */
static void
give_way(RetryAdaptive *a, const Window *w, int cause)
{
	double		factor = FAILED_FACTOR;

	a->streak = 0;
	a->found = a->gave_way = true;
	if (a->limit < 2)
	{
		/* nothing of ours waits before this one: so that is how it is */
		a->limit = 1;
		if (cause == CAUSE_SLOW)
		{
			a->least[0] = resting_level(a) + w->rise / 4;
			a->least[1] = 0;
		}
		else if (cause == CAUSE_FAILURES)
			a->usual_failures += (w->failures - a->usual_failures) / 4;
		return;
	}
	if (cause == CAUSE_SLOW)
		factor = Max(GIVE_WAY * exp2(w->chance * 2 / 3 - w->rise), LEAST_FACTOR);
	a->from = Min(a->limit, Max(a->peak, 1));
	if (a->in_vain == 0)
		a->from_first = a->from;
	a->before = cause == CAUSE_SLOW ? w->level : w->failures;
	a->limit = Max(a->from * factor, 1);
	a->cause = cause;
}

/* Doubles at first, then probes step by step, faster when it is long in the right. */
static void
grow(RetryAdaptive *a, int32 max)
{
	double		step = Max(a->limit / 16, 1) * (1 + a->streak / 4);

	if (!a->found)
		step = a->limit;
	a->limit = Min(a->limit + Min(step, Max(a->limit / 2, 1)), max);
	if (a->streak < 100)
		a->streak++;
}

/*
 * Where it has to give way again and again, what it takes for the latency
 * without a queue may have had one: so from time to time it sends half for the
 * length of a window.
 */
static bool
look_deeper(RetryAdaptive *a, int64 now_us)
{
	bool		look = a->gave_way && a->limit >= 2;

	if (a->epoch_windows < EPOCH_WINDOWS || now_us - a->epoch_start < EPOCH_US)
		return false;
	begin_epoch(a, now_us);
	if (!look)
		return false;
	a->from = a->limit;
	a->limit /= 2;
	a->cause = CAUSE_CURIOUS;
	return true;
}

static void
end_window(RetryAdaptive *a, int32 max, int64 now_us)
{
	bool		curious = a->cause == CAUSE_CURIOUS;
	Window		w;

	read_window(a, &w);
	if (a->cause != CAUSE_NONE)
	{
		judge_experiment(a, &w);
		read_window(a, &w);
	}
	note_usual(a, &w, now_us);

	if (a->throttled > 1 && w.throttlings > THROTTLINGS)
		give_way(a, &w, CAUSE_THROTTLED);
	else if (a->failed > 1 && w.failures > w.bearable)
		give_way(a, &w, CAUSE_FAILURES);
	else if (w.rise > RISE + w.chance)
		give_way(a, &w, CAUSE_SLOW);
	else if (!look_deeper(a, now_us) && !curious && a->used > 0)
		grow(a, max);
	begin_window(a, now_us);
}

void
retry_adaptive_ended(RetryAdaptive *a, RetryFlowKind kind, int64 latency_us,
					 int32 in_flight, int32 max, int64 now_us)
{
	int32		limit;
	int32		enough;

	max = Max(max, 1);
	latency_us = Max(latency_us, 1);
	if (a->limit == 0)
	{
		a->limit = FIRST_LIMIT;
		begin_window(a, now_us - latency_us);
	}
	a->limit = Min(a->limit, max);
	if (kind == RETRY_FLOW_NEUTRAL || now_us - latency_us < a->window_start)
		return;
	limit = (int32) a->limit;

	a->answers++;
	a->failed += kind == RETRY_FLOW_FAILED;
	a->throttled += kind == RETRY_FLOW_THROTTLED;
	a->used += in_flight >= limit;
	a->peak = Max(a->peak, in_flight);

	/* a quick refusal says nothing of how long work takes, a timeout does */
	if (kind == RETRY_FLOW_WELL ||
		(kind == RETRY_FLOW_FAILED && resting_level(a) != 0 && log2(latency_us) > resting_level(a)))
	{
		double		level = Max(log2(latency_us), 0.001);	/* 0 says unknown */

		a->timed++;
		a->sum += level;
		a->squares += level * level;
	}

	/* refusals come quickly, and more than enough of them */
	enough = Min(Max(WINDOW_MIN, 2 * Min(limit, WINDOW_MAX)), WINDOW_MAX);
	if (a->answers >= enough || (a->throttled > 1 && a->throttled > enough * THROTTLINGS))
		end_window(a, max, now_us);
}

int32
retry_adaptive_limit(const RetryAdaptive *a, int32 max)
{
	double		limit = a->limit == 0 ? FIRST_LIMIT : a->limit;

	return (int32) Max(Min(limit, (double) max), 1.0);
}
