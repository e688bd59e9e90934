/*
 * trickle.c
 *		Commits one task at a time and notes when each commit was known.
 *
 * Together with the receiver's ledger this gives the time from commit to
 * arrival.  The clock is read when the server's answer to the commit has come
 * back, which is the first moment at which anybody outside can know of it; a
 * request may well have arrived before.
 *
 *		trickle [--sql STATEMENT] CONNINFO URL COUNT GAP_MS [LANES] > commits
 *
 * prints a line "task-id microseconds-since-1970" for each task.  A task begins
 * every GAP_MS, or at once when the one before took longer than that; they go
 * to so many lanes in turn, or all to that of the URL.  With --sql, for what is
 * compared with retry, the statement enqueues the task and returns its id.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <libpq-fe.h>

static long long
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static int
usage(void)
{
	fprintf(stderr, "usage: trickle [--sql STATEMENT] CONNINFO URL COUNT GAP_MS [LANES]\n");
	return 2;
}

/* Sleeps until that time; without looking when it is over. */
static void
sleep_until(long long at_us)
{
	long long	left = at_us - now_us();
	struct timespec gap = {left / 1000000, left % 1000000 * 1000};

	if (left > 0)
		nanosleep(&gap, NULL);
}

int
main(int argc, char **argv)
{
	const char *params[2] = {NULL, NULL};
	const char *sql = NULL;
	char		lane[32];
	PGconn	   *conn;
	long		count;
	long		lanes;
	long long	gap_us;
	long long	began;

	if (argc > 2 && strcmp(argv[1], "--sql") == 0)
	{
		sql = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 5 || argc > 6)
		return usage();
	count = strtol(argv[3], NULL, 10);
	gap_us = (long long) (strtod(argv[4], NULL) * 1000);
	lanes = argc > 5 ? strtol(argv[5], NULL, 10) : 0;
	conn = PQconnectdb(argv[1]);
	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		return 1;
	}
	params[0] = argv[2];
	began = now_us();
	for (long i = 0; i < count; i++)
	{
		PGresult   *res;
		long long	committed;

		sleep_until(began + i * gap_us);
		if (lanes > 0)
		{
			snprintf(lane, sizeof(lane), "healthy-%ld", i % lanes + 1);
			params[1] = lane;
		}
		if (sql != NULL)
			res = PQexecParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0);
		else
			res = PQexecParams(conn, "SELECT retry.enqueue($1, '{\"n\": 1}', lane => $2)", 2, NULL, params, NULL, NULL, 0);
		committed = now_us();
		if (PQresultStatus(res) != PGRES_TUPLES_OK)
		{
			fprintf(stderr, "%s", PQerrorMessage(conn));
			return 1;
		}
		printf("%s %lld\n", PQgetvalue(res, 0, 0), committed);
		PQclear(res);
	}
	PQfinish(conn);
	return 0;
}
