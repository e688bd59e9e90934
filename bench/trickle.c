/*
 * trickle.c
 *		Commits one task at a time and notes when each commit was known.
 *
 * Together with the receiver's ledger this gives the time from commit to
 * arrival.  The clock is read when the server's answer to the commit has come
 * back, which is the first moment at which anybody outside can know of it; a
 * request may well have arrived before.
 *
 *		trickle CONNINFO URL COUNT GAP_MS > commits
 *
 * prints a line "task-id microseconds-since-1970" for each task.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <libpq-fe.h>

static long long
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

int
main(int argc, char **argv)
{
	struct timespec gap;
	const char *params[1];
	PGconn	   *conn;
	long		count;

	if (argc != 5)
	{
		fprintf(stderr, "usage: trickle CONNINFO URL COUNT GAP_MS\n");
		return 2;
	}
	count = strtol(argv[3], NULL, 10);
	gap.tv_sec = 0;
	gap.tv_nsec = strtol(argv[4], NULL, 10) * 1000000L;
	conn = PQconnectdb(argv[1]);
	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		return 1;
	}
	params[0] = argv[2];
	for (long i = 0; i < count; i++)
	{
		PGresult   *res = PQexecParams(conn, "SELECT retry.enqueue($1, '{\"n\": 1}')", 1, NULL, params, NULL, NULL, 0);
		long long	committed = now_us();

		if (PQresultStatus(res) != PGRES_TUPLES_OK)
		{
			fprintf(stderr, "%s", PQerrorMessage(conn));
			return 1;
		}
		printf("%s %lld\n", PQgetvalue(res, 0, 0), committed);
		PQclear(res);
		nanosleep(&gap, NULL);
	}
	PQfinish(conn);
	return 0;
}
