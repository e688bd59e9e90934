/*
 * session_http.h
 *		One HTTP exchange at a time, in the session of whoever wants it.
 *
 * The same client that dispatchers use, driven by a loop that does nothing
 * but wait; every wait can be interrupted.
 */
#ifndef RETRY_SESSION_HTTP_H
#define RETRY_SESSION_HTTP_H

#include "http.h"

/*
 * Makes the exchange under the settings of now, and returns its result, which
 * stays valid until retry_session_release() or the next exchange.  ERROR when
 * the session is told to stop (then the request is given up and its connection
 * closed), or when the client cannot be had.  The request's tag is not used.
 */
extern const RetryHttpResult *retry_session_exchange(const RetryHttpRequest *request);

/* Gives the last result back; none is no mistake. */
extern void retry_session_release(void);

/* Sleeps so many microseconds by the monotonic clock; ERROR as above. */
extern void retry_session_sleep(int64 us);

#endif							/* RETRY_SESSION_HTTP_H */
