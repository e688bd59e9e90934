/*
 * remote.h
 *		Commands that are sent to other PostgreSQL servers.
 *
 * Connections are kept by the process that made them, one for each server, and
 * made again when the server's row or password has changed.  Nothing waits
 * without an end: each command has so much time, connecting included, and can
 * be interrupted as any statement.  What goes wrong there is not raised but told.
 */
#ifndef RETRY_REMOTE_H
#define RETRY_REMOTE_H

#include "server.h"

/* Connections that a process keeps; so many servers can be asked at once. */
#define RETRY_REMOTES	16

/* What came of a command; in the memory context in which it was waited for. */
typedef struct RetryRemoteResult
{
	bool		failed;
	int			sqlstate;		/* when it failed; 08... also when the server
								 * could not be reached */
	char	   *message;		/* with the server's name */
	char	   *hint;			/* or NULL */
	int			rows;
	int			columns;
	char	  **values;			/* row by row; NULL for SQL's null; without
								 * rows there is still one, of nulls, unless
								 * it failed */
} RetryRemoteResult;

typedef struct RetryRemote RetryRemote;

/*
 * Sends a command with its parameters, which are texts, that answers with rows
 * of so many columns (0: with none).  Connects first, when there is no
 * connection.  What fails is told by the next function, which must be called
 * before the next command for the same server.  The server's struct must live
 * until then.
 */
extern RetryRemote *retry_remote_send(const RetryServer *server, const char *sql, int nparams,
									  const char *const *params, int columns);

/*
 * Waits for the end of the command.  A connection that turns out to be lost
 * from before is made anew, and the command sent again, once: so all commands
 * must be such that to do them twice does no harm.
 */
extern void retry_remote_receive(RetryRemote *remote, RetryRemoteResult *result);

/* Both. */
extern void retry_remote_command(const RetryServer *server, const char *sql, int nparams,
								 const char *const *params, int columns, RetryRemoteResult *result);

/* The ERROR for a result that has failed. */
pg_noreturn extern void retry_remote_raise(const RetryRemoteResult *result);

#endif							/* RETRY_REMOTE_H */
