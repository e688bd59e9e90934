/*
 * remote.c
 *		Connections to other PostgreSQL servers, by libpq.
 *
 * libpq is used without blocking, beside the latch, so that a session or
 * executor that waits for a server can be cancelled and ended.  An error that
 * comes in between leaves a connection marked as busy, of which nobody knows how
 * far it is; whoever wants it next closes it and makes another.  This is the
 * only file that knows libpq.
 */
#include "postgres.h"

#include <ctype.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "remote.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(retry_check_conninfo);

/* More than libpq has for a connection, with those that are ours. */
#define MAX_OPTIONS	80

/* libpq holds what a server sends until it is whole, however much that is. */
#define MAX_ANSWER_BYTES	(16 * 1024 * 1024)

/* Its place is taken by the server that comes next when all are taken. */
struct RetryRemote
{
	char	   *definition;		/* of the server when it was made; malloc'd;
								 * NULL: the place is free */
	PGconn	   *conn;
	PGresult   *result;			/* that is being read, or an error has left */
	bool		busy;			/* a command is under way, or was given up */
	uint64		used;			/* when last, by a count of commands */

	/* of the command under way */
	const RetryServer *server;
	const char *sql;
	int			nparams;
	const char *const *params;
	int			columns;		/* of the answer */
	int64		deadline_us;
	uint64		received;		/* bytes, on this connection, before it */
	bool		fresh;			/* the connection was made for it */
	int			sqlstate;		/* of what has failed before it was sent */
	char		why[512];		/* "" : nothing */
};

static RetryRemote remotes[RETRY_REMOTES];
static uint64 commands = 0;
static bool at_exit = false;

/* ---------------------------------------------------------------- connection strings */

/* What a connection string must not say, and why. */
static const struct
{
	const char *keyword;
	const char *hint;
}			forbidden[] =

{
	{"password", "Set it with retry.set_secret() and name the secret in column secret."},
	{"sslpassword", "Use a key without a password that only the server's system user can read."},
	{"passfile", "Set the password with retry.set_secret() and name the secret in column secret."},
	{"scram_client_key", "Set the password with retry.set_secret() and name the secret in column secret."},
	{"oauth_client_secret", "Set the password with retry.set_secret() and name the secret in column secret."},
	{"sslkeylogfile", "Nobody but the server itself is to read what it is sent."},
	{"service", "Name host, dbname and user themselves."},
	{"servicefile", "Name host, dbname and user themselves."},
	{"replication", "Transactions are prepared over ordinary connections."},
	{"client_encoding", "It is that of this database."},
	{"fallback_application_name", "application_name can be given."},
};

static void
refuse(PQconninfoOption * options, int code, const char *message, const char *hint)
{
	PQconninfoFree(options);
	ereport(ERROR,
			(errcode(code),
			 errmsg("%s", message),
			 hint != NULL ? errhint("%s", hint) : 0));
}

static const char *
option(const PQconninfoOption * options, const char *keyword)
{
	for (; options->keyword != NULL; options++)
	{
		if (strcmp(options->keyword, keyword) == 0 && options->val != NULL && options->val[0] != '\0')
			return options->val;
	}
	return NULL;
}

/* retry.check_conninfo(text): for the constraint on retry.server. */
Datum
retry_check_conninfo(PG_FUNCTION_ARGS)
{
	static const char *const needed[] = {"dbname", "user"};
	char	   *why = NULL;
	PQconninfoOption *options;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	options = PQconninfoParse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &why);
	if (options == NULL)
	{
		char	   *copy = pstrdup(why != NULL ? why : "out of memory");

		PQfreemem(why);
		copy[strcspn(copy, "\n")] = '\0';
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("conninfo is not a connection string of libpq: %s", copy)));
	}
	for (int i = 0; i < lengthof(forbidden); i++)
	{
		if (option(options, forbidden[i].keyword) != NULL)
			refuse(options, ERRCODE_INVALID_PARAMETER_VALUE,
				   psprintf("conninfo must not contain %s", forbidden[i].keyword), forbidden[i].hint);
	}
	if (option(options, "host") == NULL && option(options, "hostaddr") == NULL)
		refuse(options, ERRCODE_INVALID_PARAMETER_VALUE, "conninfo names no host",
			   "What the environment of this server would give is not used.");
	for (int i = 0; i < lengthof(needed); i++)
	{
		if (option(options, needed[i]) == NULL)
			refuse(options, ERRCODE_INVALID_PARAMETER_VALUE, psprintf("conninfo names no %s", needed[i]),
				   "What the environment of this server would give is not used.");
	}
	PQconninfoFree(options);
	PG_RETURN_BOOL(true);
}

/* ---------------------------------------------------------------- connections */

static void
clear_result(RetryRemote *remote)
{
	PQclear(remote->result);
	remote->result = NULL;
}

static void
disconnect(RetryRemote *remote)
{
	clear_result(remote);
	if (remote->conn != NULL)
	{
		PQfinish(remote->conn);
		remote->conn = NULL;
		ReleaseExternalFD();
	}
	remote->busy = false;
}

static void
disconnect_all(int code, Datum arg)
{
	for (int i = 0; i < RETRY_REMOTES; i++)
		disconnect(&remotes[i]);
}

/* Stars in place of the password, which a server may repeat. */
static void
hide_password(const RetryServer *server, char *line)
{
	size_t		len = server->password != NULL ? strlen(server->password) : 0;

	while (len > 0 && (line = strstr(line, server->password)) != NULL)
	{
		memset(line, '*', len);
		line += len;
	}
}

/*
 * What somebody else has said, in a line, so much of it as there is room for.
 * libpq's texts have several lines, indented, and end in a line feed; those of
 * servers may have anything, and may be in another encoding than they should.
 * The password goes before anything is cut, of which a part would be left.
 */
static void
copy_said(const RetryServer *server, const char *said, char *line, size_t size)
{
	char	   *copy = pstrdup(said);
	char	   *to = line;

	hide_password(server, copy);
	for (const char *from = copy; *from != '\0' && to < line + size - 1; from++)
	{
		if (!isspace((unsigned char) *from))
			*to++ = (unsigned char) *from < ' ' || *from == 0x7F ? '?' : *from;
		else if (from[1] != '\0' && !isspace((unsigned char) from[1]))
			*to++ = ' ';
	}
	*to = '\0';
	pfree(copy);
	if (!pg_verifymbstr(line, to - line, true))
	{
		/* cut in the middle of a character, or not ours at all */
		line[pg_encoding_mbcliplen(GetDatabaseEncoding(), line, to - line, to - line)] = '\0';
		if (!pg_verifymbstr(line, strlen(line), true))
		{
			for (to = line; *to != '\0'; to++)
			{
				if (IS_HIGHBIT_SET(*to))
					*to = '?';
			}
		}
	}
}

/* The reason for which a command is given up before it was sent. */
static void
fail(RetryRemote *remote, int sqlstate, const char *why)
{
	remote->sqlstate = sqlstate;
	copy_said(remote->server, why[0] == '\0' ? "the connection was lost" : why, remote->why, sizeof(remote->why));
}

/*
 * Bytes that have come on a connection; 0 when nobody counts them, as on a Unix
 * socket.  The kernel knows: libpq does not say how much it holds of an answer
 * that is not whole.
 */
static uint64
bytes_received(PGconn * conn)
{
	struct tcp_info info = {0};
	socklen_t	size = sizeof(info);

	if (getsockopt(PQsocket(conn), IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
		return 0;
	return info.tcpi_bytes_received;
}

/* Has it answered with too much?  Then that is why it fails. */
static bool
is_too_much(RetryRemote *remote)
{
	if (bytes_received(remote->conn) <= remote->received + MAX_ANSWER_BYTES)
		return false;
	fail(remote, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		 psprintf("it answers with more than %d MB", MAX_ANSWER_BYTES / (1024 * 1024)));
	return true;
}

/* Until the socket is ready; false when the time is up, or the server sends too much. */
static bool
wait_socket(RetryRemote *remote, int events)
{
	for (;;)
	{
		int64		left_us = remote->deadline_us - retry_monotonic_us();
		int			what;

		if (is_too_much(remote))
			return false;
		if (left_us <= 0)
		{
			fail(remote, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
				 psprintf("no answer within %d ms", remote->server->timeout_ms));
			return false;
		}
		what = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT | events,
								 PQsocket(remote->conn), (long) (left_us / 1000) + 1, PG_WAIT_EXTENSION);
		if (what & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		if (what & events)
			return true;
	}
}

/* What servers say besides, libpq would write to the log of this one as it comes. */
static void
ignore_notice(void *arg, const PGresult * notice)
{
}

/*
 * libpq asks the environment for what a string does not say, and that of this
 * server was made for others.  It does so when a connection is begun.
 */
static PGconn *
start_without_environment(const PQconninfoOption * options, const char *const *keywords,
						  const char *const *values)
{
	char	   *kept[MAX_OPTIONS];
	PGconn	   *conn;

	for (int i = 0; options[i].keyword != NULL && i < MAX_OPTIONS; i++)
	{
		const char *value = options[i].envvar != NULL ? getenv(options[i].envvar) : NULL;

		kept[i] = value != NULL ? pstrdup(value) : NULL;
	}
	for (int i = 0; options[i].keyword != NULL && i < MAX_OPTIONS; i++)
	{
		if (kept[i] != NULL)
			unsetenv(options[i].envvar);
	}
	conn = PQconnectStartParams(keywords, values, 0);
	for (int i = 0; options[i].keyword != NULL && i < MAX_OPTIONS; i++)
	{
		if (kept[i] != NULL)
			setenv(options[i].envvar, kept[i], 1);
	}
	return conn;
}

/* The parameters of the connection: those of the string, and what is ours. */
static PGconn *
start_connection(const RetryServer *server)
{
	char	   *why = NULL;
	PQconninfoOption *options = PQconninfoParse(server->conninfo, &why);
	const char *keywords[MAX_OPTIONS];
	const char *values[MAX_OPTIONS];
	int			n = 0;
	PGconn	   *conn;

	if (options == NULL)
	{
		PQfreemem(why);
		return NULL;
	}
#define ADD(keyword, value) (keywords[n] = (keyword), values[n++] = (value))
	for (PQconninfoOption * o = options; o->keyword != NULL && n < MAX_OPTIONS - 8; o++)
	{
		if (o->val != NULL && o->val[0] != '\0')
			ADD(o->keyword, o->val);
	}
	if (option(options, "port") == NULL)
		ADD("port", "5432");

	/* the commands name no schemas */
	ADD("options", psprintf("%s -c search_path=pg_catalog",
							option(options, "options") != NULL ? option(options, "options") : ""));
	if (server->password != NULL)
		ADD("password", server->password);
	ADD("fallback_application_name", "retry");
	ADD("client_encoding", GetDatabaseEncodingName());
#undef ADD
	keywords[n] = values[n] = NULL;
	conn = start_without_environment(options, keywords, values);
	if (conn != NULL)
		PQsetNoticeReceiver(conn, ignore_notice, NULL);
	PQconninfoFree(options);
	return conn;
}

/* False, with the reason: there is no connection. */
static bool
make_connection(RetryRemote *remote)
{
	PostgresPollingStatusType state = PGRES_POLLING_WRITING;

	if (remote->server->secret != NULL && remote->server->password == NULL)
	{
		fail(remote, ERRCODE_UNDEFINED_OBJECT,
			 psprintf("secret \"%s\" of group \"%s\", which is to hold the password, is not set",
					  remote->server->secret, remote->server->group));
		return false;
	}
	if (!at_exit)
	{
		on_proc_exit(disconnect_all, (Datum) 0);
		at_exit = true;
	}
	if (!AcquireExternalFD())
	{
		fail(remote, ERRCODE_INSUFFICIENT_RESOURCES, "this process has no file descriptor left");
		return false;
	}
	remote->conn = start_connection(remote->server);
	if (remote->conn == NULL)
	{
		ReleaseExternalFD();
		fail(remote, ERRCODE_OUT_OF_MEMORY, "out of memory");
		return false;
	}
	remote->busy = true;
	remote->received = 0;
	if (PQstatus(remote->conn) == CONNECTION_BAD)
		state = PGRES_POLLING_FAILED;
	while (state != PGRES_POLLING_OK)
	{
		if (state == PGRES_POLLING_FAILED)
		{
			fail(remote, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION, PQerrorMessage(remote->conn));
			disconnect(remote);
			return false;
		}
		if (!wait_socket(remote, state == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE))
		{
			disconnect(remote);
			return false;
		}
		state = PQconnectPoll(remote->conn);
	}
	remote->busy = false;
	remote->fresh = true;
	return true;
}

/* The place for this server: its own, a free one, or the one used longest ago. */
static RetryRemote *
find_place(const RetryServer *server)
{
	char	   *definition = psprintf("%s\n%s\n%s\n%s", server->group, server->name, server->conninfo,
									  server->password != NULL ? server->password : "");
	Size		named = strlen(server->group) + strlen(server->name) + 2;
	RetryRemote *place = NULL;

	for (int i = 0; i < RETRY_REMOTES; i++)
	{
		RetryRemote *remote = &remotes[i];

		if (remote->definition != NULL && strncmp(remote->definition, definition, named) == 0)
		{
			place = remote;
			break;
		}
		if (place == NULL || remote->used < place->used)
			place = remote;
	}
	if (place->busy || place->definition == NULL || strcmp(place->definition, definition) != 0)
	{
		disconnect(place);
		free(place->definition);
		place->definition = strdup(definition);
		if (place->definition == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	explicit_bzero(definition, strlen(definition));
	pfree(definition);
	place->used = ++commands;
	return place;
}

/* ---------------------------------------------------------------- commands */

/* False, with the reason, when it has not gone out. */
static bool
send_command(RetryRemote *remote)
{
	int			unsent;

	if (remote->conn == NULL && !make_connection(remote))
		return false;
	remote->busy = true;
	remote->received = bytes_received(remote->conn);
	if (PQsendQueryParams(remote->conn, remote->sql, remote->nparams, NULL, remote->params, NULL, NULL, 0) != 1)
	{
		fail(remote, ERRCODE_CONNECTION_FAILURE, PQerrorMessage(remote->conn));
		disconnect(remote);
		return false;
	}
	while ((unsent = PQflush(remote->conn)) != 0)
	{
		if (unsent < 0)
			fail(remote, ERRCODE_CONNECTION_FAILURE, PQerrorMessage(remote->conn));
		if (unsent < 0 || !wait_socket(remote, WL_SOCKET_WRITEABLE))
		{
			disconnect(remote);
			return false;
		}
	}
	return true;
}

RetryRemote *
retry_remote_send(const RetryServer *server, const char *sql, int nparams, const char *const *params,
				  int columns)
{
	RetryRemote *remote = find_place(server);

	remote->server = server;
	remote->sql = sql;
	remote->nparams = nparams;
	remote->params = params;
	remote->columns = columns;
	remote->deadline_us = retry_monotonic_us() + (int64) server->timeout_ms * 1000;
	remote->fresh = false;
	remote->why[0] = '\0';
	if (!send_command(remote) && !remote->fresh && remote->sqlstate == ERRCODE_CONNECTION_FAILURE)
	{
		/* it was lost while nobody needed it */
		remote->why[0] = '\0';
		(void) send_command(remote);
	}
	return remote;
}

/* What is wrong with a result, if it has not the columns that were asked for; or NULL. */
static const char *
what_is_wrong(const RetryRemote *remote, const PGresult * from)
{
	ExecStatusType status = PQresultStatus(from);

	if (status == PGRES_FATAL_ERROR)
		return NULL;
	if (status != (remote->columns == 0 ? PGRES_COMMAND_OK : PGRES_TUPLES_OK) ||
		PQnfields(from) != remote->columns)
		return "it does not answer as PostgreSQL does";
	for (int row = 0; row < PQntuples(from); row++)
	{
		for (int i = 0; i < remote->columns; i++)
		{
			if (!pg_verifymbstr(PQgetvalue(from, row, i), PQgetlength(from, row, i), true))
				return "its answer is not in the encoding of this database";
		}
	}
	return NULL;
}

static void
take_error(RetryRemote *remote, const PGresult * from, RetryRemoteResult *to)
{
	const char *primary = PQresultErrorField(from, PG_DIAG_MESSAGE_PRIMARY);
	const char *hint = PQresultErrorField(from, PG_DIAG_MESSAGE_HINT);
	const char *state = PQresultErrorField(from, PG_DIAG_SQLSTATE);

	to->failed = true;
	to->sqlstate = state != NULL && strlen(state) == 5 ?
		MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]) : ERRCODE_CONNECTION_FAILURE;
	fail(remote, to->sqlstate, primary != NULL ? primary : PQresultErrorMessage(from));
	to->message = psprintf("server \"%s\": %s", remote->server->name, remote->why);
	to->hint = NULL;
	if (hint != NULL)
	{
		to->hint = palloc(sizeof(remote->why));
		copy_said(remote->server, hint, to->hint, sizeof(remote->why));
	}
}

/* What libpq has, copied; of no row there is one of nulls, that whoever looks finds. */
static void
take_result(RetryRemote *remote, RetryRemoteResult *to)
{
	const		PGresult *from = remote->result;

	if (PQresultStatus(from) == PGRES_FATAL_ERROR)
	{
		take_error(remote, from, to);
		return;
	}
	to->rows = PQntuples(from);
	to->columns = remote->columns;
	to->values = palloc0(mul_size(sizeof(char *), mul_size(Max(to->rows, 1), Max(to->columns, 1))));
	for (int row = 0; row < to->rows; row++)
	{
		for (int column = 0; column < to->columns; column++)
		{
			if (!PQgetisnull(from, row, column))
				to->values[(Size) row * to->columns + column] = pstrdup(PQgetvalue(from, row, column));
		}
	}
}

/* All that the command answers; false, with the reason, when the connection is lost. */
static bool
receive(RetryRemote *remote, RetryRemoteResult *result)
{
	bool		any = false;
	const char *wrong;

	for (;;)
	{
		while (PQisBusy(remote->conn))
		{
			if (!wait_socket(remote, WL_SOCKET_READABLE))
			{
				disconnect(remote);
				return false;
			}
			if (PQconsumeInput(remote->conn) == 0)
				break;
			if (is_too_much(remote))
			{
				disconnect(remote);
				return false;
			}
		}
		if (PQstatus(remote->conn) == CONNECTION_BAD && !any)
		{
			fail(remote, ERRCODE_CONNECTION_FAILURE, PQerrorMessage(remote->conn));
			disconnect(remote);
			return false;
		}
		remote->result = PQgetResult(remote->conn);
		if (remote->result == NULL)
			break;
		if (any && result->failed && PQresultStatus(remote->result) == PGRES_FATAL_ERROR)
		{
			clear_result(remote);	/* that the connection is lost, too */
			continue;
		}
		wrong = any ? "it answers more than once" : what_is_wrong(remote, remote->result);
		if (wrong != NULL)
		{
			fail(remote, ERRCODE_PROTOCOL_VIOLATION, wrong);
			disconnect(remote);
			return false;
		}
		take_result(remote, result);
		clear_result(remote);
		any = true;
	}
	remote->busy = false;
	if (PQstatus(remote->conn) == CONNECTION_BAD)
	{
		/* its last word may be why it ended, before it heard of the command */
		disconnect(remote);
		if (result->failed && !remote->fresh)
		{
			fail(remote, ERRCODE_CONNECTION_FAILURE, result->message);
			memset(result, 0, sizeof(*result));
			return false;
		}
	}
	return true;
}

void
retry_remote_receive(RetryRemote *remote, RetryRemoteResult *result)
{
	bool		done = false;

	memset(result, 0, sizeof(*result));
	if (remote->why[0] == '\0')
	{
		done = receive(remote, result);
		if (!done && !remote->fresh && remote->sqlstate == ERRCODE_CONNECTION_FAILURE)
		{
			remote->why[0] = '\0';
			done = send_command(remote) && receive(remote, result);
		}
	}
	if (!done)
	{
		result->failed = true;
		result->sqlstate = remote->sqlstate;
		result->message = psprintf("server \"%s\": %s", remote->server->name, remote->why);
		result->hint = NULL;
	}
}

void
retry_remote_command(const RetryServer *server, const char *sql, int nparams,
					 const char *const *params, int columns, RetryRemoteResult *result)
{
	retry_remote_receive(retry_remote_send(server, sql, nparams, params, columns), result);
}

void
retry_remote_raise(const RetryRemoteResult *result)
{
	ereport(ERROR,
			(errcode(result->sqlstate),
			 errmsg("%s", result->message),
			 result->hint != NULL ? errhint("%s", result->hint) : 0));
}
