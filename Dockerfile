# The official image of PostgreSQL with retry in it: preloaded, and created in
# the database that the image makes at its first start.
#
#	docker build --build-arg PG_MAJOR=17 -t postgres-retry:17 .
#	docker run -e POSTGRES_PASSWORD=… postgres-retry:17
ARG PG_MAJOR=17

FROM postgres:${PG_MAJOR}-bookworm AS build
# PG_MAJOR is a variable of the official image from here on.
RUN apt-get update && apt-get install -y --no-install-recommends \
	gcc libc6-dev make libcurl4-openssl-dev libpq-dev libssl-dev "postgresql-server-dev-$PG_MAJOR"
COPY . /src
# Bitcode, for the just-in-time compiler, would need clang.
RUN make -C /src -j2 with_llvm=no && make -C /src install with_llvm=no DESTDIR=/out

FROM postgres:${PG_MAJOR}-bookworm
# New clusters copy this sample; an existing one needs the line in its own file.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libcurl4 && \
	rm -rf /var/lib/apt/lists/* && \
	echo "shared_preload_libraries = 'retry'" >>/usr/share/postgresql/postgresql.conf.sample && \
	echo 'CREATE EXTENSION retry;' >/docker-entrypoint-initdb.d/10-retry.sql
COPY --from=build /out/ /
