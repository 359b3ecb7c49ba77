variable "greeting" {
  description = "the text of the front page"
  type        = string
  default     = "Welcome to the shop."
}
