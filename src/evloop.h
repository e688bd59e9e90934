/*
 * evloop.h
 *	  Drives curl multi handles from one private epoll set.
 *
 * The dispatcher waits in a WaitEventSet, from which PostgreSQL 15 cannot
 * remove a socket again.  So curl's sockets live in an epoll set of their own
 * and only that set's descriptor, which never changes, is waited on.  When it
 * is readable, one call handles all ready sockets and timers.
 */
#ifndef RETRY_EVLOOP_H
#define RETRY_EVLOOP_H

#include <curl/curl.h>

typedef struct RetryEvloop RetryEvloop;

/* Multi handles that one loop can drive. */
#define RETRY_EVLOOP_MAX_MULTIS 64

/*
 * Creates a loop without multi handles.  NULL when descriptors or memory are
 * short, errno says which.
 */
extern RetryEvloop *retry_evloop_create(void);

/*
 * Takes over a multi handle's socket and timer callbacks.  At most
 * RETRY_EVLOOP_MAX_MULTIS times.  The loop must live until after the handle's
 * curl_multi_cleanup.
 */
extern void retry_evloop_add(RetryEvloop *loop, CURLM *multi);

/*
 * Must be told of each socket opened for curl, from its OPENSOCKETFUNCTION;
 * false when memory is short.  Such sockets stay registered between transfers
 * (see evloop.c); all others are registered and removed as curl asks.
 */
extern bool retry_evloop_socket_opened(RetryEvloop *loop, curl_socket_t fd);

/*
 * Has curl waited for something to read from the socket that was opened last under
 * this number, and may be closed by now?  Then it was connected.
 */
extern bool retry_evloop_read_from(const RetryEvloop *loop, curl_socket_t fd);

/* A CURLOPT_CLOSESOCKETFUNCTION; its data is the loop. */
extern int	retry_evloop_close_socket(void *loop, curl_socket_t fd);

/*
 * Takes a socket from curl, which has no more use for it but has not closed it:
 * from now on ready(arg) is called, by retry_evloop_run, whenever it can be read,
 * or written if "writing".  To be called again when that changes; it ends when
 * the socket is closed.  False when it cannot be watched.
 */
extern bool retry_evloop_watch(RetryEvloop *loop, curl_socket_t fd, bool writing,
							   void (*ready) (void *arg), void *arg);

/* The moment, in microseconds of the monotonic clock. */
extern int64 retry_evloop_now_us(void);

/* The descriptor to wait on; owned by the loop. */
extern int	retry_evloop_fd(RetryEvloop *loop);

/* Milliseconds until curl's next timer, rounded up; 0: due; -1: none. */
extern long retry_evloop_timeout_ms(RetryEvloop *loop);

/*
 * Handles what is ready, without waiting.  0: done; an errno: a socket could
 * not be watched; -1: curl reported a fault of a whole multi handle.  After
 * either, transfers may hang until their timeouts.
 */
extern int	retry_evloop_run(RetryEvloop *loop);

/* Frees the loop; its multi handles must be cleaned up before. */
extern void retry_evloop_destroy(RetryEvloop *loop);

#endif							/* RETRY_EVLOOP_H */
