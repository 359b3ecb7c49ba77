job "shop-cache" {
  group "cache" {
    task "cache" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo cache is ready; exec sleep 1000000"]
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
