/*
 * without_smtp.c
 *		A libcurl that was built without SMTP, for a whole PostgreSQL server.
 *
 * Preloaded into the postmaster, it says of libcurl what is true but for the
 * protocols: of those it has http and https.
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <dlfcn.h>

curl_version_info_data *
curl_version_info(CURLversion stamp)
{
	static const char *const protocols[] = {"http", "https", NULL};
	static curl_version_info_data said;
	curl_version_info_data *(*real) (CURLversion) =
		(curl_version_info_data * (*) (CURLversion)) dlsym(RTLD_NEXT, "curl_version_info");

	if (real != NULL)
		said = *real(stamp);
	said.protocols = protocols;
	return &said;
}
