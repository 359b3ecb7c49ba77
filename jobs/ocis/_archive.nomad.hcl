# Backup, restore and pruning with restic: several jobs are made of this file. Each
# service with state is a group, since its volume may be on another node. The repository
# is created by a job of its own: two that create it at once damage it.

locals {
  action     = "backup"
  schedule   = ""
  time_zone  = "UTC"
  parts      = {}
  repository = ""
  volume     = ""
  keep       = ""
  run        = ""
  secret_env = ""

  # The functions of this text have no braces of templates, and no variable of Nomad.
  script = <<EOT
set -eu
repository() {
  problem=$($RESTIC cat config 2>&1 > /dev/null) && return 0
  $RESTIC init || { echo "$problem" >&2; return 1; }
}

# A file that vanishes while restic reads ends it with 3.
save() {
  for attempt in 1 2 3; do
    code=0
    $RESTIC backup --quiet --host "$PART" "$@" || code=$?
    [ $code = 3 ] || return $code
  done
  return 3
}

files() {
  find . -type f -exec stat -c '%n %s %y' '{}' + | sort
}

# Metadata of files is saved before their contents: no file then refers to contents that
# are missing.
backup() {
  cd "$DATA"
  run=$(echo "$NOMAD_JOB_ID" | sed 's/.*-//')
  tmp="$NOMAD_TASK_DIR"
  find . -mindepth 5 -maxdepth 5 -type d -path './*/spaces/*/blobs' > "$tmp/blobs"
  sed "s|^\.|$DATA|" "$tmp/blobs" > "$tmp/exclude"
  # A database in one file is saved between two of its transactions.
  for attempt in 1 2 3 4 5; do
    before=$(files)
    save --tag "$run,data" --exclude-file "$tmp/exclude" .
    [ "$SETTLED" = true ] || break
    [ "$before" != "$(files)" ] || break
    [ $attempt != 5 ] || { echo "$DATA changes all the time" >&2; exit 1; }
  done
  [ ! -s "$tmp/blobs" ] || save --tag "$run,blobs" --files-from-verbatim "$tmp/blobs"
  echo "saved $PART as run $run"
}

restore() {
  mkdir -p "$DATA"
  cd "$DATA"
  if [ -f .restored ] && [ "$(cat .restored)" = "$RUN" ]; then
    echo "$DATA has run $RUN already"
    exit 0
  fi
  if [ "$(cat .restoring 2> /dev/null)" != "$RUN" ] && [ -n "$(ls -A | grep -v '^lost+found$')" ]; then
    echo "$DATA is not empty: a restore writes into empty volumes only. Move its files away, or deploy without restore" >&2
    exit 1
  fi
  echo "$RUN" > .restoring
  tag=""
  [ "$RUN" = latest ] || tag="$RUN,"
  $RESTIC restore latest --quiet --host "$PART" --tag "$tag"data --target "$DATA" --verify
  if $RESTIC snapshots --json --host "$PART" --tag "$tag"blobs | grep -q short_id; then
    $RESTIC restore latest --quiet --host "$PART" --tag "$tag"blobs --target "$DATA" --verify
  fi
  mv .restoring .restored
  echo "restored $PART from run $RUN"
}

prune() {
  $RESTIC forget --quiet --group-by host,tags --prune $KEEP
  $RESTIC check --quiet
}

$ACTION
EOT
}

job "archive-ocis" {
  dynamic "group" {
    for_each = local.parts
    labels   = [group.key]
    content {
      restart {
        attempts = 1
        interval = "30m"
        delay    = "15s"
        mode     = "fail"
      }

      reschedule {
        attempts  = 0
        unlimited = false
      }

      dynamic "volume" {
        for_each = group.value.volume == "" ? {} : { data = group.value.volume }
        labels   = [volume.key]
        content {
          type            = "host"
          source          = volume.value
          access_mode     = "single-node-multi-writer"
          attachment_mode = "file-system"
        }
      }

      dynamic "volume" {
        for_each = local.volume == "" ? {} : { repository = local.volume }
        labels   = [volume.key]
        content {
          type            = "host"
          source          = volume.value
          access_mode     = "single-node-multi-writer"
          attachment_mode = "file-system"
        }
      }

      task "restic" {
        driver = var.driver
        user   = var.user

        config {
          image        = var.driver == "docker" ? var.backup_image : null
          network_mode = var.driver == "docker" ? "host" : null
          entrypoint   = var.driver == "docker" ? ["/bin/sh"] : null
          command      = var.driver == "docker" ? null : "/bin/sh"
          args         = ["$${NOMAD_TASK_DIR}/archive.sh"]
        }

        dynamic "volume_mount" {
          for_each = group.value.volume == "" ? {} : { data = group.value.data }
          content {
            volume      = volume_mount.key
            destination = volume_mount.value
          }
        }

        dynamic "volume_mount" {
          for_each = local.volume == "" ? {} : { repository = local.repository }
          content {
            volume      = volume_mount.key
            destination = volume_mount.value
          }
        }

        env {
          HOME              = "$${NOMAD_TASK_DIR}"
          ACTION            = local.action
          PART              = group.key
          DATA              = group.value.data
          SETTLED           = group.key == "idm"
          RUN               = local.run
          KEEP              = local.keep
          RESTIC            = var.driver == "docker" ? "restic" : var.backup_binary
          RESTIC_REPOSITORY = local.repository
          RESTIC_CACHE_DIR  = "$${NOMAD_ALLOC_DIR}/cache"
        }

        template {
          destination = "local/archive.sh"
          data        = local.script
        }

        template {
          destination = "secrets/restic.env"
          env         = true
          perms       = "0600"
          data        = local.secret_env
        }

        resources {
          cpu    = 100
          memory = 384
        }
      }
    }
  }
}
