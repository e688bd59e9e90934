/*
 * stats.h
 *		What the endpoint has seen: counters, keys, latencies, the ledger.
 *
 * A test asks the receiver, not the sender, what really happened: how often
 * each key arrived, how many were in progress at once, how late they were.
 */
#ifndef ENDPOINT_STATS_H
#define ENDPOINT_STATS_H

#include "http.h"
#include "keyset.h"
#include "text.h"

/* Count one connection accepted, or one lost by the client in mid-request. */
extern void stats_accepted(void);
extern void stats_aborted(void);

/* A request begins and ends; in between it is in progress. */
extern void stats_begin(void);
extern void stats_end(void);

/*
 * Record one request under the behaviour index `kind`, answered `status`.
 * Keeps the ledger line unless counting only.
 */
extern void stats_request(const Request *req, int kind, int status);

/* How often this key (or ?id=) came to this very path before now. */
extern uint32_t stats_visits(const Request *req);

/* Requests being held under one name at /concurrency; -1 = table is full. */
extern int	stats_busy_begin(Slice name);
extern void stats_busy_end(int slot);

extern void stats_reset(void);
extern void stats_json(Buf *b, int open_connections);

/* ledger.c: the file (may be NULL) and the copy in memory. */
extern void ledger_open(const char *file);
extern void ledger_add(const Request *req, int status, int64_t mono_us, int64_t wall_us);
extern void ledger_flush(void);
extern bool ledger_dirty(void);
extern void ledger_reset(void);

/* JSON lines of the requests with this key, or of all when key.p is NULL. */
extern void ledger_json(Buf *b, Slice key);

#endif							/* ENDPOINT_STATS_H */
