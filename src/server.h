/*
 * server.h
 *		Other PostgreSQL servers, on which transactions are prepared.
 *
 * A server is a row of retry.server, of a group; its password is a secret of
 * that group.  Rows are read when they are needed, not kept.
 */
#ifndef RETRY_SERVER_H
#define RETRY_SERVER_H

#include "nodes/pg_list.h"
#include "utils/snapshot.h"
#include "scene.h"

/* Columns of retry.server. */
enum
{
	Server_group_name, Server_name, Server_conninfo, Server_secret, Server_timeout,
	Server_description, Server_natts
};

/* Where it is, and how one gets in; strings are in the caller's memory context. */
typedef struct RetryServer
{
	char		group[RETRY_NAME_MAX + 1];
	char		name[RETRY_NAME_MAX + 1];
	char	   *conninfo;
	char	   *secret;			/* name of the one that holds the password; or
								 * NULL */
	char	   *password;		/* its value; NULL: none, or it is not set */
	int32		timeout_ms;		/* for connecting and one command together */
} RetryServer;

/*
 * Reads a server of a group, with its password; false when the snapshot sees
 * none of this name.  Raises only what table access raises.
 */
extern bool retry_server_find(Snapshot snapshot, const RetryGroupRow *group, const char *name,
							  RetryServer *server);

/* The same; ERROR (undefined_object) when there is none. */
extern void retry_server_get(Snapshot snapshot, const RetryGroupRow *group, const char *name,
							 RetryServer *server);

/* Names (char *) of the servers of a group, in order. */
extern List *retry_servers_of_group(Snapshot snapshot, const RetryGroupRow *group);

#endif							/* RETRY_SERVER_H */
