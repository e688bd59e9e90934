/*
 * resolver.c
 *		Name look-ups that answer as a test wants, for a whole PostgreSQL server.
 *
 * Preloaded into the postmaster, it answers for the names in a file; whoever
 * owns a name server may answer anything, and something else each time.  A line
 * of the file is a name and its answers: the n-th look-up in a process gets the
 * n-th, and then the last one again.  An answer is addresses with commas
 * between them, all of one answer, or - for none.  The file is read at each
 * look-up.  Other names that end in .test do not exist; all else is the C
 * library's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMES	200

typedef int (*Getaddrinfo) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct
{
	char		name[64];
	int			lookups;
}			seen[MAX_NAMES];

/* How often the name was asked for before. */
static int
count_lookup(const char *name)
{
	int			i = 0;
	int			before = 0;

	pthread_mutex_lock(&lock);
	while (i < MAX_NAMES - 1 && seen[i].name[0] != '\0' && strcmp(seen[i].name, name) != 0)
		i++;
	snprintf(seen[i].name, sizeof(seen[i].name), "%s", name);
	before = seen[i].lookups++;
	pthread_mutex_unlock(&lock);
	return before;
}

/* The answer for this look-up, copied; 0 when the file does not have the name. */
static int
find_answer(const char *name, char *answer, size_t size)
{
	const char *path = getenv("RETRY_TEST_NAMES");
	FILE	   *file = path != NULL ? fopen(path, "re") : NULL;
	char		line[1024];
	int			found = 0;

	while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL)
	{
		char	   *rest;
		char	   *word = strtok_r(line, " \n", &rest);
		int			n;

		if (word == NULL || strcasecmp(word, name) != 0)
			continue;
		found = 1;
		for (n = count_lookup(name); (word = strtok_r(NULL, " \n", &rest)) != NULL; n--)
		{
			snprintf(answer, size, "%s", word);
			if (n == 0)
				break;
		}
	}
	if (file != NULL)
		fclose(file);
	return found;
}

/* Chains what the C library makes of each address. */
static int
make_answer(Getaddrinfo real, char *answer, const char *service, const struct addrinfo *hints,
			struct addrinfo **res)
{
	struct addrinfo numeric = {0};
	struct addrinfo **end = res;
	char	   *rest;

	if (hints != NULL)
		numeric = *hints;
	numeric.ai_family = AF_UNSPEC;
	numeric.ai_flags = AI_NUMERICHOST;
	*res = NULL;
	for (char *address = strtok_r(answer, ",", &rest); address != NULL; address = strtok_r(NULL, ",", &rest))
	{
		if (strcmp(address, "-") != 0 && real(address, service, &numeric, end) != 0)
			abort();
		while (*end != NULL)
			end = &(*end)->ai_next;
	}
	return *res != NULL ? 0 : EAI_NONAME;
}

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			struct addrinfo **res)
{
	Getaddrinfo real = (Getaddrinfo) dlsym(RTLD_NEXT, "getaddrinfo");
	char		answer[1024] = "-";
	size_t		len = node != NULL ? strlen(node) : 0;

	if (node != NULL && find_answer(node, answer, sizeof(answer)))
		return make_answer(real, answer, service, hints, res);
	if (len > 5 && strcasecmp(node + len - 5, ".test") == 0)
		return EAI_NONAME;
	return real(node, service, hints, res);
}
