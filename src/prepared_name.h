/*
 * prepared_name.h
 *		Names of transactions that are prepared on other servers.
 *
 * A name says whose it is: which cluster and database coordinates it, which
 * branch of which global transaction it is, and which transaction there has
 * registered it.  So who finds it on a server years later knows whom to ask,
 * and the coordinator knows whether anybody can still want it.
 */
#ifndef RETRY_PREPARED_NAME_H
#define RETRY_PREPARED_NAME_H

#include <stdbool.h>
#include <stdint.h>

/* The longest name, with its end; PostgreSQL takes up to 200. */
#define RETRY_PREPARED_NAME_MAX	128

typedef struct RetryPreparedName
{
	uint64_t	system;			/* identifier of the coordinator's cluster */
	uint32_t	database;		/* OID of its database */
	unsigned char gid[16];
	int			branch;			/* from 1 */
	uint64_t	xid;			/* top-level transaction that registered it */
} RetryPreparedName;

/* Writes the name; cannot fail. */
extern void retry_prepared_name_write(const RetryPreparedName *name, char *text);

/*
 * Reads one; false when it is not exactly what the above writes.  Reads nothing
 * beyond the end of the string; cannot fail.
 */
extern bool retry_prepared_name_read(const char *text, RetryPreparedName *name);

#endif							/* RETRY_PREPARED_NAME_H */
