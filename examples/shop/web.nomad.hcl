job "shop-web" {
  group "web" {
    task "web" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo '${var.greeting}'; exec sleep 1000000"]
      }
      template {
        data        = "SESSION_KEY={{ with nomadVar \"nomad/jobs/shop-web\" }}{{ .session_key }}{{ end }}"
        destination = "$${NOMAD_SECRETS_DIR}/env"
        env         = true
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
