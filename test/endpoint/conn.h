/*
 * conn.h
 *		One client connection: what was read, what is to be written, and the
 *		plan by which the current request is answered (or is not).
 *
 * A behaviour never touches the socket. It appends bytes to `out` and sets
 * the plan; conn.c carries the plan out. So every misbehaviour is a few lines.
 */
#ifndef ENDPOINT_CONN_H
#define ENDPOINT_CONN_H

#include "http.h"
#include "text.h"

typedef enum ConnState
{
	CONN_READING,				/* between requests or inside one */
	CONN_HELD,					/* an answer (or its next piece) waits for its moment */
	CONN_SENDING,				/* bytes are on their way out */
	CONN_STUCK					/* will never answer */
} ConnState;

typedef enum ConnAfter
{
	AFTER_KEEP,					/* keep the connection */
	AFTER_CLOSE,				/* FIN */
	AFTER_RESET					/* RST, by SO_LINGER 0 */
} ConnAfter;

typedef struct Conn Conn;

/* Appends the next piece; ms to wait before sending it, or -1: nothing more. */
typedef int (*ConnProduce) (Conn *c);

struct Conn
{
	int			fd;
	ConnState	state;
	uint32_t	interest;		/* epoll events asked for */
	Buf			in;
	size_t		in_pos;			/* consumed bytes of in */
	Buf			out;
	size_t		out_sent;
	size_t		out_limit;		/* bytes of out that may be sent now */
	uint64_t	filler;			/* this many 'x' follow out */
	bool		continued;		/* 100 Continue was sent for this request */
	bool		early;			/* this request was answered before its body */
	bool		counted;		/* this request is in in_progress */
	void	   *ssl;			/* SSL *, or NULL */

	/* the plan: set by a behaviour, cleared before each request */
	int			status;			/* what was answered, 0 = nothing */
	int64_t		hold_us;		/* wait this long before sending */
	ConnProduce produce;
	int64_t		produce_left;	/* the producer's own count */
	int			produce_ms;		/* and pace */
	size_t		produce_size;
	ConnAfter	after;
	bool		stuck;			/* never answer … */
	bool		stop_reading;	/* … nor read any more */
	bool		head_only;		/* the request was HEAD */
	int			busy_slot;		/* of stats, for /concurrency, or -1 */

	/* timer.c's */
	int64_t		due_us;
	int			heap_at;		/* index in the heap, -1 = no timer */

	Conn	   *next;
	Conn	   *prev;
};

extern void conn_init(int epoll_fd);

/* Take over an accepted, non-blocking socket. */
extern void conn_open(int fd);

/* What epoll reported, and what the timer reported, for one connection. */
extern void conn_event(Conn *c, uint32_t events);
extern void conn_timer(Conn *c);

/* Free what was closed: only between batches of events, which may name it. */
extern void conn_reap(void);

/* Close every connection that has a request in progress, except `keep`. */
extern void conn_drop_busy(Conn *keep);
extern int	conn_count(void);

/* timer.c: one timer a connection. */
extern void timer_set(Conn *c, int64_t due_us);
extern void timer_cancel(Conn *c);
extern Conn *timer_pop_due(int64_t now_us);

/* When the next timer is due (monotonic us), or -1. */
extern int64_t timer_next(void);

#endif							/* ENDPOINT_CONN_H */
