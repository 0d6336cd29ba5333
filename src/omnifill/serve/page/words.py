"""All that the page says, in English and Chinese, in one table.

What the models say is in no table: it is shown as it is. `{…}` is filled in by whoever shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

Language = Literal["en", "zh"]
CODES: dict[Language, str] = {"en": "en", "zh": "zh-CN"}
"""For `lang` of the document, and for the words that Gradio's own parts have."""

WORDS: dict[str, tuple[str, str]] = {
    # The head of the page
    "about": ("Fill in any field from any others.", "由任意字段生成任意其他字段。"),
    "language": ("Language", "语言"),
    "colours": ("Colours", "配色"),
    "light": ("light", "浅色"),
    "dark": ("dark", "深色"),
    "leave": ("log out", "退出登录"),
    "skip": ("Skip to the fields", "跳到字段"),
    "model": ("Model", "模型"),
    # Tabs
    "tab_fields": ("Fields", "字段"),
    "tab_chat": ("Chat", "对话"),
    "tab_report": ("Report", "报告"),
    "tab_metrics": ("Metrics", "指标"),
    # Fields
    "given": ("given", "给定"),
    "wanted": ("wanted", "生成"),
    "out": ("left out", "不用"),
    "value_of": ("{name}: value", "{name}：值"),
    "text_info": ("text", "文本"),
    "category_info": ("one of {count} values", "{count} 个取值之一"),
    "number_range": ("number, seen from {low} to {high}", "数字，训练范围 {low} 至 {high}"),
    "number_info": ("number", "数字"),
    "datetime_info": ("date", "日期"),
    "image_info": ("picture", "图片"),
    "audio_info": ("sound", "声音"),
    "calendar": ("calendar", "日历"),
    "draw": ("{name}: draw, or upload a picture", "{name}：绘制或上传图片"),
    "picture": ("{name}: upload a picture", "{name}：上传图片"),
    "sound": ("{name}: upload or record a sound", "{name}：上传或录制声音"),
    "unknown": ("Fields of type {type} cannot be given here.", "此处无法给定 {type} 类型的字段。"),
    "blank": ("A given field that is empty means: known to be blank.",
              "给定但为空的字段表示：已知为空。"),
    "prompt": ("The text begins with", "文本开头"),
    "prompt_info": ("Optional; it begins the first wanted text.", "可选；第一个生成文本的开头。"),
    "suffix": ("The text ends with", "文本结尾"),
    # Settings
    "more": ("More settings", "更多设置"),
    "n": ("How many", "数量"),
    "seed": ("Seed", "随机种子"),
    "temperature": ("Temperature", "温度"),
    "top_p": ("Top-p", "Top-p"),
    "top_k": ("Top-k", "Top-k"),
    "min_p": ("Min-p", "Min-p"),
    "max_tokens": ("Most tokens of a text", "文本最大 token 数"),
    "stop": ("Stop at", "停止词"),
    "stop_info": ("One on each line.", "每行一个。"),
    "aims": ("Aims", "目标"),
    "aims_info": ("One on each line, such as length<=80 or kind=tea.",
                  "每行一个，例如 length<=80 或 kind=tea。"),
    "candidates": ("Candidates for each record", "每条记录的候选数"),
    "guidance": ("Guidance", "引导强度"),
    "steps": ("Steps", "步数"),
    "logprobs": ("Show how likely each token was", "显示每个 token 的概率"),
    "scores": ("Show how likely each record is", "显示每条记录的似然"),
    # Doing
    "generate": ("Generate", "生成"),
    "stop_now": ("Stop", "停止"),
    "state": ("State", "状态"),
    "ready": ("Ready.", "就绪。"),
    "waiting": ("Asked; nothing has come yet.", "已发送，等待结果。"),
    "writing": ("Writing: {count} pieces.", "生成中：{count} 段。"),
    "done": ("Done. Records: {records}, tokens: {tokens}, {seconds} s.",
             "完成：{records} 条记录，{tokens} 个 token，{seconds} 秒。"),
    "stopped": ("Stopped.", "已停止。"),
    "refused": ("Refused: {why}", "被拒绝：{why}"),
    "unreachable": ("The server did not answer.", "服务器没有响应。"),
    "no_number": ("This is no number: {value}", "这不是数字：{value}"),
    "nothing_wanted": ("Say which field is wanted.", "请至少选择一个要生成的字段。"),
    # Results
    "results": ("Results", "结果"),
    "text": ("Text", "文本"),
    "table": ("Records", "记录"),
    "csv": ("Download as CSV", "下载 CSV"),
    "pictures": ("Pictures", "图片"),
    "a_sound": ("Sound {number}", "声音 {number}"),
    "likely": ("How likely each token was", "每个 token 的概率"),
    "ranked": ("Records, the likeliest first", "记录，最可能的在前"),
    "row": ("record", "记录"),
    "score": ("log-likelihood (nats)", "对数似然（奈特）"),
    "sure": ("90 % or more", "90 % 以上"),
    "rather": ("50 to 90 %", "50 至 90 %"),
    "hardly": ("10 to 50 %", "10 至 50 %"),
    "rare": ("less than 10 %", "低于 10 %"),
    "media": ("a picture or sound", "图片或声音"),
    # The same elsewhere
    "copy": ("The same elsewhere", "用其他方式执行"),
    "command": ("Command", "命令行"),
    "python": ("Python", "Python"),
    "curl": ("curl", "curl"),
    "no_command": ("# the command line cannot say this; use Python or curl",
                   "# 命令行无法表达此请求，请使用 Python 或 curl"),
    # History
    "history": ("History", "历史"),
    "given_blank": ("{name}: blank", "{name}：空"),
    "asked": ("What was asked in this session", "本次会话的请求"),
    "again": ("Show again", "重新显示"),
    # Chat
    "system": ("System message", "系统消息"),
    "chat": ("Conversation", "对话"),
    "message": ("Your message", "你的消息"),
    "send": ("Send", "发送"),
    "clear": ("New conversation", "新对话"),
    # Report
    "about_model": ("What this model is", "模型说明"),
    "about_fields": ("Its fields", "字段说明"),
    "property": ("property", "属性"),
    "value": ("value", "值"),
    "field": ("field", "字段"),
    "type": ("type", "类型"),
    "blanks": ("may be blank", "可为空"),
    "holds": ("what it holds", "取值"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "write_report": ("How good it is, on data it has not seen, beside baselines, is told by a "
                     "report. Write one where the run folder is:",
                     "报告会说明模型在未见数据上与基线相比的表现。请在运行目录所在处生成："),
    # Metrics
    "figures": ("Now", "当前"),
    "figure": ("figure", "指标"),
    "open": ("requests under way", "进行中的请求"),
    "waiting_requests": ("of these waiting for a row", "其中等待行的请求"),
    "rows_used": ("rows that are written now", "正在生成的行"),
    "written": ("tokens written", "已生成的 token"),
    "speed": ("tokens a second, now", "当前每秒 token"),
    "first": ("seconds to the first token, mean", "首个 token 平均秒数"),
    "answered": ("requests answered", "已回答的请求"),
    "full": ("refused because full", "因已满而拒绝"),
    "restarts": ("engine restarts", "引擎重启次数"),
}  # fmt: skip

Say = Callable[..., str]


def words(language: Language) -> Say:
    """-> a function from a name of the table to what it says."""
    place = list(CODES).index(language)

    def say(name: str, /, **values: Any) -> str:
        return WORDS[name][place].format(**values) if values else WORDS[name][place]

    return say
