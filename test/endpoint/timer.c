/*
 * timer.c
 *		A binary heap of connections by the moment they are due.
 *
 * Each connection knows its place, so that setting and cancelling cost a few
 * swaps: ten thousand delayed answers a second are not worth a timerfd each.
 */
#include "conn.h"

#include <stdio.h>
#include <stdlib.h>

static Conn **heap;
static int	heap_len;
static int	heap_cap;

static void
place(int at, Conn *c)
{
	heap[at] = c;
	c->heap_at = at;
}

static void
sift_up(int at)
{
	Conn	   *c = heap[at];

	while (at > 0 && heap[(at - 1) / 2]->due_us > c->due_us)
	{
		place(at, heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	place(at, c);
}

static void
sift_down(int at)
{
	Conn	   *c = heap[at];

	for (;;)
	{
		int			kid = at * 2 + 1;

		if (kid >= heap_len)
			break;
		if (kid + 1 < heap_len && heap[kid + 1]->due_us < heap[kid]->due_us)
			kid++;
		if (heap[kid]->due_us >= c->due_us)
			break;
		place(at, heap[kid]);
		at = kid;
	}
	place(at, c);
}

void
timer_set(Conn *c, int64_t due_us)
{
	timer_cancel(c);
	if (heap_len == heap_cap)
	{
		heap_cap = heap_cap ? heap_cap * 2 : 1024;
		heap = realloc(heap, heap_cap * sizeof(Conn *));
		if (heap == NULL)
		{
			fprintf(stderr, "endpoint: out of memory for %d timers\n", heap_cap);
			exit(1);
		}
	}
	c->due_us = due_us;
	heap[heap_len] = c;
	sift_up(heap_len++);
}

void
timer_cancel(Conn *c)
{
	int			at = c->heap_at;
	Conn	   *last;

	if (at < 0)
		return;
	c->heap_at = -1;
	last = heap[--heap_len];
	if (last == c)
		return;
	place(at, last);
	sift_up(at);
	sift_down(last->heap_at);
}

Conn *
timer_pop_due(int64_t now_us)
{
	Conn	   *c;

	if (heap_len == 0 || heap[0]->due_us > now_us)
		return NULL;
	c = heap[0];
	timer_cancel(c);
	return c;
}

int64_t
timer_next(void)
{
	return heap_len > 0 ? heap[0]->due_us : -1;
}
